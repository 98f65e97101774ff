"""Metric handlers in MONAI's evaluator."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedEvaluator

from medvl.engines import PrepareBatchImageText
from medvl.handlers import GroundingMetricHandler, RetrievalMetricHandler, ZeroShotMetricHandler
from medvl.metrics import RetrievalMetric, ZeroShotMetric

NAMES = ["Edema", "Fracture", "Pneumonia"]
PROMPTS = {
    "Fracture": {"present": ["fracture", "a broken rib"], "absent": ["no fracture"]},
    "Edema": {"present": ["edema"], "absent": ["no edema", "clear"]},
}


class Network(torch.nn.Module):
    """Pixels and token ids as embeddings, with dropout that would show a forgotten evaluation mode."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)
        self.turn = torch.nn.Parameter(torch.eye(4))
        self.calls = 0

    def forward(self, image, input_ids):
        return {"image_embeds": self.dropout(image.flatten(1)), "text_embeds": input_ids.float()}

    def encode_text(self, texts):
        self.calls += 1
        vectors = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(len(text))) for text in texts])
        return self.dropout(vectors @ self.turn)


def batches():
    generator = torch.Generator().manual_seed(0)
    for number, first in ((4, 0), (3, 4)):
        image = torch.randn(number, 1, 2, 2, generator=generator)
        yield {
            "image": image,
            "input_ids": (10 * image.flatten(1) + 3 * torch.randn(number, 4, generator=generator)).long(),
            "label": torch.tensor([[1.0, 0.0, torch.nan], [0.0, 1.0, -1.0], [1.0, 1.0, 0.0], [0.0, torch.nan, 1.0]])[
                :number
            ],
            "image_ids": torch.arange(first, first + number),
            "text_ids": torch.arange(first, first + number),
        }


def evaluator(network, decollate=False, **metrics):
    first, *rest = metrics.items()
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=list(batches()),
        network=network,
        prepare_batch=PrepareBatchImageText(network_keys=("input_ids",)),
        key_val_metric=dict([first]),
        additional_metrics=dict(rest),
        decollate=decollate,
    )


def test_handlers_give_the_metrics_over_the_epoch_and_renew_the_prompts():
    network = Network()
    engine = evaluator(
        network,
        r2=RetrievalMetricHandler("recall_at_2"),
        auroc=ZeroShotMetricHandler(PROMPTS, NAMES, network),
    )
    for epoch in (1, 2):
        engine.run()
        data = list(batches())
        image = torch.cat([batch["image"].flatten(1) for batch in data])
        retrieval = RetrievalMetric("recall_at_2")
        retrieval(image, torch.cat([batch["input_ids"] for batch in data]).float())
        assert engine.state.metrics["r2"] == pytest.approx(retrieval.aggregate().item())
        network.eval()
        unit = torch.nn.functional.normalize
        margins = []
        for name in PROMPTS:
            sides = [
                unit(unit(network.encode_text(PROMPTS[name][side])).mean(0), dim=0) for side in ("present", "absent")
            ]
            margins.append(unit(image) @ (sides[0] - sides[1]))
        network.train()
        expected = ZeroShotMetric()
        expected(torch.stack(margins, 1), torch.cat([batch["label"][:, [1, 0]] for batch in data]))
        assert engine.state.metrics["auroc"] == pytest.approx(expected.aggregate().item())
        assert network.calls == epoch * 5  # one call of the handler and four above
        assert network.training
        network.turn.data = torch.eye(4).flip(0)
    assert engine.state.best_metric == engine.state.metrics["r2"]


def test_equal_reports_are_right_answers():
    # Each image lies nearest to the other study's copy of its own report.
    prediction = {"image_embeds": torch.eye(3), "text_embeds": torch.eye(3)[[1, 0, 2]]}
    ids = {"image_ids": torch.arange(3), "text_ids": torch.arange(3)}
    for reports, recall in (
        (["No  effusion.", "no effusion.", "Edema."], 1.0),
        (["Clear.", "Effusion.", "Edema."], 1 / 3),
        (["", None, "Edema."], 1 / 3),  # blank reports are not the same report
        (["Clear."], 1 / 3),  # not one for each image
        (None, 1 / 3),
    ):
        handler = RetrievalMetricHandler("recall_at_1", "image_to_text")
        handler.update((prediction, {**ids, "report": reports}))
        assert handler.compute() == pytest.approx(recall)
    by_ids = RetrievalMetricHandler("recall_at_1", "image_to_text", report_key="")
    by_ids.update((prediction, {**ids, "report": ["Same."] * 3}))
    assert by_ids.compute() == pytest.approx(1 / 3)


def test_prompts_are_encoded_as_the_network_says():
    class Prompted(Network):
        def encode_class_prompts(self, texts):
            return -self.encode_text(texts)

    plain, prompted = (
        ZeroShotMetricHandler({"Edema": PROMPTS["Edema"]}, NAMES, network) for network in (Network(), Prompted())
    )
    torch.testing.assert_close(prompted._embed_prompts(), -plain._embed_prompts())


def test_a_decollating_engine_is_told_apart():
    engine = evaluator(Network(), decollate=True, r2=RetrievalMetricHandler())
    with pytest.raises(TypeError, match="got list: give the evaluator decollate=False"):
        engine.run()


def test_grounding_handler_takes_maps_and_keeps_details():
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[
            {"image": torch.eye(4)[None, None].repeat(3, 1, 1, 1), "label": torch.eye(4)[None, None].repeat(3, 1, 1, 1)}
        ],
        network=torch.nn.Identity(),
        key_val_metric={
            "iou": GroundingMetricHandler(
                output_transform=lambda output: ([o["pred"] for o in output], [o["label"] for o in output])
            )
        },
    )
    engine.run()
    assert engine.state.metrics["iou"] == 1
    assert engine.state.metric_details["iou"].shape == (3, 1)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"^class_prompts must be of findings among .*, got \['Nodule'\]\.$"):
        ZeroShotMetricHandler({"Nodule": PROMPTS["Edema"]}, NAMES, Network())
    for absent in (None, [], "no edema"):
        with pytest.raises(
            ValueError, match=r"^class_prompts\['Edema'\]\['absent'\] must be a list of at least one string"
        ):
            ZeroShotMetricHandler({"Edema": {"present": ["edema"], "absent": absent}}, NAMES, Network())
    handler = ZeroShotMetricHandler(PROMPTS, NAMES[:2], Network())
    with pytest.raises(ValueError, match=r"label must have shape \(N, 2\), a column for each name, got \(4, 3\)"):
        handler.update(({"image_embeds": torch.ones(4, 4)}, {"label": torch.ones(4, 3)}))
