"""Gradient caching against the plain step with the whole batch."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch
from caching_cases import RECIPES, Case, differences, make_case
from fork_server import run_in_processes
from peak_bytes import PeakBytes
from torch import nn

from medvl.engines import GradientCaching
from medvl.engines.chunks import BatchSize, plan_chunks
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import PooledViews

WORKER = Path(__file__).with_name("gradient_caching_worker.py")


def assert_equal(got, expected, tolerance=1e-5):
    worst = differences(got, expected)
    name = max(worst, key=worst.get)
    assert worst[name] <= tolerance, f"{name} differs by {worst[name]} of its largest value"


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_are_those_of_the_whole_batch(recipe):
    case = make_case(recipe)
    expected = case.gradients()
    assert sum(value is not None and bool(value.any()) for value in expected.values()) > 50
    for chunk_size in (1, 4, 6):
        assert_equal(case.gradients(GradientCaching(chunk_size)), expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_of_one_chunk_takes_the_plain_step(recipe):
    case = make_case(recipe, dropout=0.3)
    got, expected = case.gradients(GradientCaching(11)), case.gradients()
    assert set(differences(got, expected).values()) == {0.0}


def graph_of_chunks(case, chunks):
    """The same chunks with a graph of the whole batch, the memory of which gradient caching saves."""
    outputs = []
    for rows in chunks:
        part = case.share(rows, rows).batch
        outputs.append(case.network(part["image"], part["input_ids"], part["attention_mask"], part["sentence_ids"]))
    joined = {name: torch.cat([o[name] for o in outputs]) for name in outputs[0] if outputs[0][name].ndim}
    return {**joined, "logit_scale": outputs[-1]["logit_scale"]}


GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_second_pass_draws_the_same_random_numbers(device, autocast):
    case = make_case("convirt", dropout=0.3)
    moved = {name: value.to(device) for name, value in case.batch.items()}
    case = Case(case.network.to(device).train(), case.loss, moved)
    torch.manual_seed(5)
    chunks = [slice(0, 4), slice(4, 8), slice(8, 11)]  # eleven pairs in three chunks
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast, cache_enabled=False):
        output = graph_of_chunks(case, chunks)
        loss = case.loss(output, case.batch)
    loss.backward()
    expected = {name: value.grad for name, value in case.network.named_parameters()} | {"the loss": loss.detach()}
    after = torch.rand(3, device=device)
    case.network.zero_grad()
    amp = {"amp": autocast, "amp_kwargs": {"dtype": torch.bfloat16}}
    got = case.gradients(GradientCaching(4), seed=5, device=device, **amp)
    assert torch.equal(torch.rand(3, device=device), after), "the generator goes on as after one pass"
    torch.testing.assert_close(got["the loss"], loss.detach(), rtol=1e-6, atol=0)
    assert_equal(got, expected, 2e-2 if autocast else 1e-5)  # bfloat16 has 8 bits
    assert all(value.dtype == torch.float32 for value in got.values())


def test_checkpointed_networks():
    case = make_case("mlip")
    expected = case.gradients()
    case.network.gradient_checkpointing_enable()
    assert_equal(case.gradients(GradientCaching(4)), expected)


def test_autocast_is_used_on_the_cpu():
    case = make_case("convirt")
    exact, rounded = (case.gradients(GradientCaching(4), amp=amp)["the loss"] for amp in (False, True))
    assert exact != rounded
    assert exact.item() == pytest.approx(rounded.item(), rel=0.05)


def test_parameters_of_the_loss_and_outputs_without_rows_get_their_gradients():
    class Scaled(nn.Module):
        """A loss with a temperature and a bias of its own, beside the network's scale."""

        def __init__(self):
            super().__init__()
            self.scale, self.term = nn.Parameter(torch.tensor(2.0)), ImageTextContrastiveLoss()

        def forward(self, image_embeds, text_embeds, logit_scale):
            return self.term(image_embeds, text_embeds, logit_scale=logit_scale * self.scale)

    case = make_case("convirt")
    case.network.logit_scale.log_scale = nn.Parameter(case.network.logit_scale.log_scale.clone())
    case = Case(case.network, CombinedLoss({"scaled": Scaled()}), case.batch)
    expected = case.gradients()
    assert expected["loss.losses.0.scale"]
    assert expected["logit_scale.log_scale"]
    assert_equal(case.gradients(GradientCaching(3)), expected)


def test_what_a_loss_leaves_out_and_what_is_frozen_gets_no_gradient():
    case = make_case("mlip")
    case.network.text_encoder.requires_grad_(False)
    loss = CombinedLoss(
        {"global": ImageTextContrastiveLoss(image_weight=0.5, pool_texts=True, paired_only=True)},
        {"weights": "semantic_integrity"},
    )
    case = Case(case.network, loss, case.batch, case.network_keys)
    expected = case.gradients()
    without = {name for name, value in expected.items() if value is None}
    assert any("patch_decoder" in name for name in without)
    assert any("text_encoder" in name for name in without)
    assert_equal(case.gradients(GradientCaching(3)), expected)


@pytest.mark.parametrize("missing", ["image", "text"])
def test_a_batch_without_images_or_without_texts(missing):
    case = make_case("mlip")
    side = ("image", "visible_indices") if missing == "image" else ("input_ids", "attention_mask", "sentence_ids")
    batch = {name: value for name, value in case.batch.items() if name not in (*side, f"{missing}_ids")}
    present = "text" if missing == "image" else "image"

    class Mean(nn.Module):
        def forward(self, embeds, other=None):
            return (embeds @ embeds.T).square().mean()

    case = Case(case.network, CombinedLoss({"mean": Mean()}, {"embeds": f"{present}_embeds"}), batch, case.network_keys)
    assert_equal(case.gradients(GradientCaching(4)), case.gradients())


def test_studies_with_several_views_stay_together():
    case = make_case("convirt", images=6)
    network = PooledViews(case.network)
    batch = {**case.batch, "image": torch.rand(9, 1, 32, 32), "view_index": torch.tensor([0, 1, 0, 2, 3, 4, 2, 5, 2])}
    case = Case(network, case.loss, batch, (*case.network_keys, "view_index"))
    expected = case.gradients()
    for chunk_size in (1, 2, 4):
        assert_equal(case.gradients(GradientCaching(chunk_size)), expected)


class Plain(nn.Module):
    """Encoders with batch norm and names of their own."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.3), nn.Dropout(0.2), nn.Linear(6, 3))
        self.text = nn.Embedding(10, 3)

    def forward(self, image, words):
        return {"v": self.image(image), "t": self.text(words).mean(1)}


OWNERS = {"words": "text", "v": "image", "t": "text"}


def plain_batch(number=10):
    torch.manual_seed(2)
    return torch.rand(number, 4), torch.randint(10, (number, 5))


def test_batch_norm_has_the_statistics_of_chunks_and_is_updated_once(caplog):
    network, (image, words) = Plain(), plain_batch()
    norm = network.image[1]
    norm.running_mean.fill_(0.5)
    parts = [slice(0, 4), slice(4, 7), slice(7, 10)]
    caching = GradientCaching(4, row_owners=OWNERS)
    torch.manual_seed(3)
    with caplog.at_level(logging.WARNING):
        batch = caching.embed(network, image, words=words)
        (batch.output["v"] @ batch.output["t"].T).square().mean().backward()
        batch.backward()
        caching.embed(network, image, words=words)
    assert [chunk.images for chunk in batch.chunks] == [list(range(10))[part] for part in parts]
    (record,) = caplog.records
    assert "batch norm (image.1), which normalizes each chunk of at most 4 images" in record.getMessage()
    got = {name: value.grad for name, value in network.named_parameters()}
    running, count = norm.running_mean.clone(), norm.num_batches_tracked.clone()
    assert (count, caching._warned) == (2, True)

    fresh = Plain()
    fresh.load_state_dict(network.state_dict())
    hidden = network.image[0](image).detach()
    means = torch.stack([hidden[part].mean(0) for part in parts])
    mean = (means * torch.tensor([[0.4], [0.3], [0.3]])).sum(0)
    once = 0.7 * torch.full((6,), 0.5) + 0.3 * mean
    twice = 0.7 * once + 0.3 * mean
    torch.testing.assert_close(running, twice)

    torch.manual_seed(3)
    outputs = [fresh(image[part], words[part]) for part in parts]
    v, t = (torch.cat([output[name] for output in outputs]) for name in "vt")
    (v @ t.T).square().mean().backward()
    assert_equal(got, {name: value.grad for name, value in fresh.named_parameters()})


def test_batch_norm_in_evaluation_mode_is_exact_and_left_alone(caplog):
    resnet = {"backbone": "resnet10", "width": 0.125, "output_stride": 8}
    case = make_case("mlip", image_encoder=resnet)

    class Frozen(nn.Module):
        """A network whose batch norm does not follow ``train``."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def train(self, mode=True):
            super().train(mode)
            self.network.image_encoder.eval()
            return self

        def forward(self, image, **kwargs):
            return self.network(image, **kwargs)

    case = Case(Frozen(case.network), case.loss, case.batch, case.network_keys)
    expected = case.gradients()
    before = {name: value.clone() for name, value in case.network.named_buffers()}
    with caplog.at_level(logging.WARNING):
        assert_equal(case.gradients(GradientCaching(4)), expected)
    assert not caplog.records
    assert all(torch.equal(value, before[name]) for name, value in case.network.named_buffers())


def test_names_that_are_not_known_are_recognized_by_their_number_or_refused():
    network, (image, words) = Plain().eval(), plain_batch()
    with pytest.raises(
        ValueError, match=r"^argument words must be named in row_owners, .*, got 9 rows, with 10 images"
    ):
        GradientCaching(4).embed(network, image, words=words[:9])

    class Three(Plain):
        def forward(self, image, input_ids):
            return {**super().forward(image, input_ids), "penalty": self.image[0].weight.square().sum()}

    three, tokens = Three().eval(), words.repeat(2, 1)[:13]
    with pytest.raises(
        ValueError, match=r"^output penalty must be named in row_owners, .*, got no rows, with 2 images"
    ):
        GradientCaching(2, row_owners={"v": "image", "t": "text"}).embed(three, image, input_ids=tokens)
    batch = GradientCaching(2, row_owners={"v": "image", "t": "text", "penalty": "shared"}).embed(
        three, image, input_ids=tokens
    )
    (batch.output["v"].sum() * batch.output["t"].sum() + batch.output["penalty"]).backward()
    batch.backward()
    got = {name: value.grad.clone() for name, value in three.named_parameters()}
    three.zero_grad()
    output = three(image, tokens)
    (output["v"].sum() * output["t"].sum() + output["penalty"]).backward()
    assert_equal(got, {name: value.grad for name, value in three.named_parameters()})


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"^chunk_size must be at least 1, got 0\.$"):
        GradientCaching(0)
    with pytest.raises(TypeError, match=r"^chunk_size must be an integer, got '64'\.$"):
        GradientCaching("64")
    with pytest.raises(
        ValueError, match=r"^row_owners\['v'\] must be one of 'image', 'text', 'shared', got 'study'\.$"
    ):
        GradientCaching(4, row_owners={"v": "study"})
    case = make_case("convirt")
    with pytest.raises(ValueError, match=r"^accumulation_steps must be 1 with gradient caching, .*, got 2\.$"):
        case.gradients(GradientCaching(4), accumulation_steps=2)
    with pytest.raises(TypeError, match=r"^the output of the network must be of type Mapping, got Tensor\.$"):
        GradientCaching(4).embed(nn.Linear(4, 3), torch.rand(9, 4))


class TestChunks:
    @pytest.mark.parametrize("images", [1, 2, 7, 64, 65, 127, 128, 129, 1000])
    def test_pairs_are_divided_evenly(self, images):
        chunks = plan_chunks(BatchSize(images, images, images), 64)
        assert len(chunks) == -(-images // 64)
        assert {len(chunk.images) for chunk in chunks} <= {images // len(chunks), -(-images // len(chunks))}
        assert all(chunk.images == chunk.texts == chunk.studies for chunk in chunks)
        assert [row for chunk in chunks for row in chunk.images] == list(range(images))

    @pytest.mark.parametrize("seed", range(20))
    def test_every_row_is_in_one_chunk_with_its_study(self, seed):
        draw = torch.Generator().manual_seed(seed)
        images, texts, size = (int(torch.randint(low, 40, (), generator=draw)) for low in (0, 0, 1))
        image_ids = torch.randint(30, (images,), generator=draw).tolist()
        text_ids = torch.randint(40, (texts,), generator=draw).tolist()
        chunks = plan_chunks(BatchSize(images, images, texts), size, image_ids, text_ids)
        assert sorted(row for chunk in chunks for row in chunk.images) == list(range(images))
        assert sorted(row for chunk in chunks for row in chunk.texts) == list(range(texts))
        chunk_of = {image_ids[row]: number for number, chunk in enumerate(chunks) for row in chunk.images}
        for number, chunk in enumerate(chunks):
            assert len(chunk.images) <= size or len({image_ids[row] for row in chunk.images}) == 1
            assert all(chunk_of[image_ids[row]] == number for row in chunk.images)
            assert all(chunk_of.get(text_ids[row], number) == number for row in chunk.texts)
            assert chunk.images or chunk.texts
            assert (chunk.guest is None) == bool(chunk.texts or not texts)
        if images and texts:
            assert chunks[-1].images
            assert chunks[-1].texts

    def test_images_without_a_text_are_spread(self):
        paired = range(0, 40)
        chunks = plan_chunks(BatchSize(80, 80, 40), 10, list(range(80)), list(paired))
        assert [len(chunk.texts) for chunk in chunks] == [5] * 8

    def test_texts_without_an_image_make_chunks_of_their_own(self):
        chunks = plan_chunks(BatchSize(2, 2, 50), 10, ["a", "b"], ["a", *map(str, range(49))])
        assert len(chunks) == 5
        assert sorted(len(chunk.texts) for chunk in chunks) == [10] * 5
        assert sorted(len(chunk.images) for chunk in chunks) == [0, 0, 0, 1, 1]

    def test_images_are_spread_over_the_chunks_of_many_texts(self):
        chunks = plan_chunks(BatchSize(8, 8, 50), 10)
        assert [(len(chunk.images), len(chunk.texts)) for chunk in chunks] == [
            (2, 10),
            (2, 10),
            (1, 10),
            (2, 10),
            (1, 10),
        ]


@pytest.mark.parametrize("recipe", RECIPES)
def test_memory_is_that_of_a_chunk_and_the_outputs(recipe):
    """At most 1.25 times the peak of a plain step with a chunk, and the outputs of the whole batch and their gradients.

    Beside the weights and their gradients, which are there before. The losses walk in tiles: what they need besides is of the
    whole batch, whatever the network does.
    """
    case = make_case(recipe, images=64, width=64, tile_size=8)
    ids = (case.batch["image_ids"].tolist(), case.batch["text_ids"].tolist())
    chunks = plan_chunks(BatchSize(64, 64, len(ids[1])), 8, *ids)
    largest = max(chunks, key=lambda chunk: len(chunk.texts))
    outputs = 0

    def measure(case, update=None):
        nonlocal outputs
        trainer = case.trainer(update, optim_set_to_none=False)
        with PeakBytes() as counted:
            trainer.run()
        kept = trainer.state.output["pred"].values()
        outputs = sum(value.nbytes * (2 if value.is_floating_point() else 1) for value in kept)
        return counted.peak

    case.gradients()
    chunk = measure(case.share(largest.images, largest.texts))
    plain = measure(case)
    cached = measure(case, GradientCaching(8))
    assert cached <= 1.25 * chunk + outputs
    assert cached < 0.5 * plain


def test_two_processes():
    done = run_in_processes(2, [sys.executable, WORKER], CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2
