"""CombinedLoss in MONAI's trainer and from a bundle's YAML, as is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medvl.losses import CombinedLoss, ImageTextContrastiveLoss, SemanticMatchingLoss

pytest.importorskip("monai")


class TwoEncoders(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, image, tokens):
        return {"image_embeds": self.image(image), "text_embeds": self.text(tokens), "logit_scale": torch.tensor(5.0)}


def prepare_batch(batch, device, non_blocking, **kwargs):
    return batch["image"], batch, (), {"tokens": batch["tokens"]}


def test_supervised_trainer_takes_it_as_is():
    from monai.engines import SupervisedTrainer

    torch.manual_seed(0)
    data = [
        {
            "image": torch.randn(6, 4),
            "tokens": torch.randn(6, 5),
            "image_ids": [f"s{i}" for i in range(6)],
            "text_ids": [f"s{i}" for i in range(6)],
            "image_labels": torch.randint(0, 2, (6, 3)).float(),
            "text_labels": torch.randint(0, 2, (6, 3)).float(),
        }
    ]
    network = TwoEncoders()
    loss = CombinedLoss({"pairs": (ImageTextContrastiveLoss(), 1.0), "semantic": (SemanticMatchingLoss(), 0.5)})
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=30,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 0.05),
        loss_function=loss,
        prepare_batch=prepare_batch,
        decollate=False,
    )
    trainer.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: losses.append(float(engine.state.output["loss"].detach()))
    )
    trainer.run()
    assert losses[-1] < losses[0] - 0.3
    assert losses[-1] == pytest.approx(float(loss.terms["pairs"] + 0.5 * loss.terms["semantic"]), rel=1e-5)


def test_a_missing_name_stops_the_trainer_with_what_there_was():
    loss = CombinedLoss({"semantic": SemanticMatchingLoss()})
    message = (
        r"loss 'semantic' \(SemanticMatchingLoss\) needs 'image_labels'; the network's output has "
        r"\['image_embeds', 'logit_scale', 'text_embeds'\] and the batch has \['image'\]"
    )
    with pytest.raises(KeyError, match=message):
        loss(TwoEncoders()(torch.ones(2, 4), torch.ones(2, 5)), {"image": torch.ones(2, 4)})


def test_from_a_bundle_configuration(tmp_path):
    from monai.bundle import ConfigParser

    path = tmp_path / "train.yaml"
    path.write_text(
        "loss:\n"
        "  _target_: medvl.losses.CombinedLoss\n"
        "  losses:\n"
        "    pairs:\n"
        "      - {_target_: medvl.losses.ImageTextContrastiveLoss, temperature: 0.2, tile_size: auto}\n"
        "      - 0.5\n"
        "    semantic: {_target_: medvl.losses.SemanticMatchingLoss, similarity: dot}\n"
    )
    parser = ConfigParser()
    parser.read_config(str(path))
    loss = parser.get_parsed_content("loss")
    assert loss.weights == {"pairs": 0.5, "semantic": 1.0}
    assert [type(term).__name__ for term in loss.losses] == ["ImageTextContrastiveLoss", "SemanticMatchingLoss"]
    assert loss.losses[0].options["temperature"] == 0.2
