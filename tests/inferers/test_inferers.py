"""Zero-shot and retrieval inferers: values, windows, and texts encoded once."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from monai.inferers import Inferer, sliding_window_inference
from torch import nn
from torch.nn import functional as F

from medvl.inferers import RetrievalInferer, ZeroShotInferer
from medvl.inferers.windows import WindowEncoder

WIDTH = 6


class Network(nn.Module):
    """Texts and images as fixed random vectors; counts what is encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(WIDTH))
        self.dropout = nn.Dropout(0.5)
        self.encoded: list[list[str]] = []

    def encode_text(self, texts):
        self.encoded.append(list(texts))
        rows = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        return self.dropout(torch.stack(rows) @ self.weight) * 3

    def encode_image(self, image):
        means = image.flatten(2).mean(2)  # (N, C)
        powers = torch.arange(1, WIDTH + 1)
        return torch.cos(means.sum(1, keepdim=True) * powers)


FINDINGS = {
    "Edema": {"present": ["edema", "pulmonary edema", "there is edema"], "absent": ["no edema"]},
    "Fracture": {"present": ["a fracture"], "absent": ["no fracture", "no broken rib"]},
}
CLASSES = {"COVID-19": ["covid"], "Pneumonia": ["pneumonia", "an infection"], "Normal": ["a normal chest"]}


def unit(texts, network):
    return [F.normalize(v, dim=0) for v in network.encode_text(texts)]


@pytest.fixture
def network():
    return Network().eval()


@pytest.fixture
def image():
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class TestZeroShot:
    @pytest.mark.parametrize("ensemble", ["mean", "max"])
    def test_findings_against_a_loop_from_the_equation(self, network, image, ensemble):
        result = ZeroShotInferer(FINDINGS, ensemble=ensemble, logit_scale=3.0)(image, network)
        assert result.shape == (5, 2)
        for n, v in enumerate(F.normalize(network.encode_image(image), dim=1)):
            for k, sides in enumerate(FINDINGS.values()):
                s = {}
                for side, prompts in sides.items():
                    vectors = unit(prompts, network)
                    if ensemble == "mean":
                        vectors = [F.normalize(torch.stack(vectors).mean(0), dim=0)]
                    s[side] = max(float(v @ t) for t in vectors)
                present, absent = math.exp(3 * s["present"]), math.exp(3 * s["absent"])
                assert result[n, k].item() == pytest.approx(present / (present + absent), abs=1e-5)

    def test_classes_of_which_one_is_true(self, network, image):
        inferer = ZeroShotInferer(CLASSES, logit_scale=2.0)
        result = inferer(image, network)
        assert inferer.names == ("COVID-19", "Pneumonia", "Normal")
        torch.testing.assert_close(result.sum(1), torch.ones(5))
        v = F.normalize(network.encode_image(image), dim=1)
        vectors = [F.normalize(torch.stack(unit(prompts, network)).mean(0), dim=0) for prompts in CLASSES.values()]
        torch.testing.assert_close(result, (2 * v @ torch.stack(vectors).T).softmax(1))

    def test_an_image_of_one_does_not_depend_on_its_batch(self, network, image):
        inferer = ZeroShotInferer(FINDINGS)
        torch.testing.assert_close(inferer(image[2:3], network), inferer(image, network)[2:3])

    @pytest.mark.parametrize("ensemble", ["mean", "max"])
    def test_embeddings_need_not_be_unit_vectors(self, network, image, ensemble):
        inferer = ZeroShotInferer(FINDINGS, ensemble=ensemble)
        embeds = network.encode_image(image)
        torch.testing.assert_close(inferer.classify(embeds * 7, network), inferer(image, network))

    def test_scale_of_the_network(self, network, image):
        network.logit_scale = nn.Parameter(torch.tensor(5.0))
        with_own = ZeroShotInferer(FINDINGS)(image, network)
        torch.testing.assert_close(with_own, ZeroShotInferer(FINDINGS, logit_scale=5.0)(image, network))
        del network.logit_scale
        torch.testing.assert_close(
            ZeroShotInferer(FINDINGS)(image, network), ZeroShotInferer(FINDINGS, logit_scale=1 / 0.07)(image, network)
        )

    @pytest.mark.parametrize(
        ("prompts", "message"),
        [
            ({}, r"^class_prompts must be a list of prompts for every class, .*, got \{\}\.$"),
            (["edema"], r"^class_prompts must be a list of prompts for every class, .*, got \['edema'\]\.$"),
            (
                {"A": ["a"], "B": {"present": ["b"], "absent": ["no b"]}},
                "class_prompts must be a list of prompts for every class",
            ),
            ({"A": "a"}, r"class_prompts\['A'\] must be a list of at least one string, got 'a'"),
            (
                {"A": {"present": ["a"]}},
                r"class_prompts\['A'\]\['absent'\] must be a list of at least one string, got None",
            ),
            ({"A": []}, r"class_prompts\['A'\] must be a list of at least one string, got \[\]"),
        ],
    )
    def test_wrong_prompts(self, prompts, message):
        with pytest.raises(ValueError, match=message):
            ZeroShotInferer(prompts)

    def test_wrong_options(self, network):
        with pytest.raises(ValueError, match="ensemble must be one of 'mean', 'max', got 'sum'"):
            ZeroShotInferer(FINDINGS, ensemble="sum")
        with pytest.raises(ValueError, match="window_pooling must be one of 'mean', 'max', got 'min'"):
            ZeroShotInferer(FINDINGS, window_pooling="min")
        with pytest.raises(ValueError, match=r"\(1, 4\) and \(7, 6\)"):
            ZeroShotInferer(FINDINGS).classify(torch.ones(1, 4), network)


class TestTextsOnce:
    def test_once_for_many_batches(self, network, image):
        inferer = ZeroShotInferer({**FINDINGS, "Again": FINDINGS["Edema"]})
        for _ in range(3):
            inferer(image, network)
        assert len(network.encoded) == 1
        assert len(network.encoded[0]) == len(set(network.encoded[0])) == 7

    @pytest.mark.parametrize("change", ["step", "fused step", "data", "load", "other"])
    def test_again_when_weights_change(self, network, image, change):
        inferer = ZeroShotInferer(FINDINGS)
        before = inferer(image, network)
        if "step" in change:
            network.weight.grad = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
            torch.optim.Adam(network.parameters(), lr=0.5, fused="fused" in change).step()
        elif change == "data":
            network.weight.data.neg_()
        elif change == "load":
            network.load_state_dict({"weight": -torch.eye(WIDTH)})
        else:
            network = Network().eval()
            with torch.no_grad():
                network.weight.mul_(torch.linspace(-1, 1, WIDTH))
        after = inferer(image, network)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, ZeroShotInferer(FINDINGS)(image, network))

    def test_no_dropout_in_the_texts_and_mode_kept(self, network, image):
        expected = ZeroShotInferer(FINDINGS)(image, network)
        network.train()
        torch.testing.assert_close(ZeroShotInferer(FINDINGS)(image, network), expected)
        assert network.training

    def test_a_part_that_stays_in_evaluation_does_so(self, network, image):
        network.train().dropout.eval()
        ZeroShotInferer(FINDINGS)(image, network)
        assert network.training
        assert not network.dropout.training

    def test_copies_encode_for_their_own_network(self, network, image):
        inferer = ZeroShotInferer(FINDINGS)
        expected = inferer(image, network)
        for other in (copy.deepcopy(inferer), pickle.loads(pickle.dumps(inferer))):
            assert torch.equal(other(image, network), expected)
        assert len(network.encoded) == 3

    def test_in_inference_mode(self, network, image):
        with torch.inference_mode():
            inferer = ZeroShotInferer(FINDINGS)
            first = inferer(image, network)
            assert torch.equal(first, inferer(image, network))
        assert len(network.encoded) == 1

    def test_of_inference_mode_take_part_in_training(self, network, image):
        inferer = RetrievalInferer(["edema", "no edema"])
        with torch.inference_mode():
            inferer(image, network)
        inferer(image.requires_grad_(), network).sum().backward()
        assert image.grad.any()
        assert len(network.encoded) == 1

    def test_network_without_the_method(self, image):
        class Images(nn.Module):
            encode_image = Network.encode_image

        with pytest.raises(TypeError, match="network must have encode_reports or encode_text, got a Images"):
            RetrievalInferer(["a"])(image, Images())


class TestWindows:
    @pytest.mark.parametrize(
        ("shape", "roi", "overlap"),
        [((9, 7), (4, 3), 0.25), ((8, 8), (8, 8), 0.5), ((5, 6, 7), (3, 3, 3), 0.0), ((3, 9), (4, 4), 0.5)],
    )
    def test_windows_are_those_of_monai(self, shape, roi, overlap):
        image = torch.rand(2, 1, *shape)
        seen = []

        def predictor(windows):
            seen.append(windows.clone())
            return windows

        sliding_window_inference(image, roi, 1, predictor, overlap=overlap)
        ours = []

        class Recorder:
            def encode_image(self, windows):
                ours.append(windows.clone())
                return windows.flatten(1)

        WindowEncoder(roi, overlap, sw_batch_size=3)(image, Recorder())
        # MONAI goes image by image, we go window by window.
        theirs = torch.stack([torch.cat(seen[:len(seen) // 2]), torch.cat(seen[len(seen) // 2:])], 1)  # fmt: skip
        torch.testing.assert_close(torch.cat(ours).unflatten(0, theirs.shape[:2]), theirs)

    def test_mean_over_windows(self, network):
        image = torch.rand(2, 1, 4, 8)
        result = ZeroShotInferer(FINDINGS, roi_size=(4, 4), overlap=0.0)(image, network)
        halves = [F.normalize(network.encode_image(image[..., part]), dim=1) for part in (slice(4), slice(4, 8))]
        mean = sum(halves) / 2
        torch.testing.assert_close(result, ZeroShotInferer(FINDINGS).classify(mean, network))

    @pytest.mark.parametrize("prompts", [FINDINGS, CLASSES])
    def test_largest_over_windows(self, network, prompts):
        image = torch.rand(3, 1, 4, 8)
        inferer = ZeroShotInferer(prompts, roi_size=4, overlap=0.0, window_pooling="max", logit_scale=1.0)
        result = inferer(image, network)
        halves = [
            inferer._similarity(network.encode_image(image[..., part]), network) for part in (slice(4), slice(4, 8))
        ]
        best = torch.maximum(*halves)
        torch.testing.assert_close(result, best.sigmoid() if prompts is FINDINGS else best.softmax(1))

    def test_wrong_options(self, network):
        with pytest.raises(ValueError, match=r"overlap must be at least 0 and below 1, got 1.0"):
            RetrievalInferer(["a"], overlap=1.0)
        with pytest.raises(ValueError, match="sw_batch_size must be at least 1, got 0"):
            RetrievalInferer(["a"], sw_batch_size=0)
        with pytest.raises(
            ValueError, match=r"^roi_size must have 2 values, one for each axis of the image, got \(4, 4, 4\)\.$"
        ):
            RetrievalInferer(["a"], roi_size=(4, 4, 4))(torch.rand(1, 1, 8, 8), network)


class TestRetrieval:
    def test_cosines_and_search(self, network, image):
        texts = ["clear lungs", "edema", "a fracture", "edema"]
        inferer = RetrievalInferer(texts)
        scores = inferer(image, network)
        expected = F.normalize(network.encode_image(image), dim=1) @ torch.stack(unit(texts, network)).T
        torch.testing.assert_close(scores, expected)
        best, found = inferer.search(image, network, k=2)
        torch.testing.assert_close(best, expected.sort(1, descending=True).values[:, :2])
        assert found[0][0] == texts[int(expected[0].argmax())]
        with pytest.raises(ValueError, match=r"^k must be between 1 and 4, the number of texts, got 5\.$"):
            inferer.search(image, network, k=5)

    def test_reports_are_read_as_the_network_reads_reports(self, network, image):
        network.encode_reports = lambda texts: -network.encode_text(texts)
        torch.testing.assert_close(
            RetrievalInferer(["a", "b"])(image, network), -RetrievalInferer(["a", "b"])(image, Network().eval())
        )

    def test_texts_must_be_a_list(self):
        for wrong in ("one", []):
            with pytest.raises(ValueError, match="texts must be a list of at least one string"):
                RetrievalInferer(wrong)


def test_they_are_monais():
    assert issubclass(ZeroShotInferer, Inferer)
    assert issubclass(RetrievalInferer, Inferer)


def test_in_an_evaluator(network):
    """MONAI's evaluator gives the inferer images, network and the network's other arguments."""
    from ignite.engine import Events
    from monai.engines import SupervisedEvaluator

    from medvl.engines import PrepareBatchImageText

    outputs = []
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": torch.rand(2, 1, 4, 4), "input_ids": torch.zeros(2, 3, dtype=torch.long)}],
        network=network,
        prepare_batch=PrepareBatchImageText(),
        inferer=ZeroShotInferer(FINDINGS),
        decollate=False,
        postprocessing=None,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output["pred"]))
    evaluator.run()
    assert outputs[0].shape == (2, 2)
