"""Batches for MONAI's trainer, with as many texts as one likes."""

from __future__ import annotations

import torch
from monai.engines import SupervisedTrainer
from torch import nn

from medvl.engines import PrepareBatchImageText
from medvl.transforms import LabelPolicy


class Encoders(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(4, 3), nn.Embedding(10, 3)

    def forward(self, image, input_ids, attention_mask=None):
        return {"image_embeds": self.image(image), "text_embeds": self.text(input_ids).mean(1)}


def test_network_and_loss_get_what_they_ask_for():
    seen = []

    def loss(pred, batch):
        seen.append((pred["image_embeds"].shape, pred["text_embeds"].shape, batch["study_id"], batch["text_ids"]))
        return (pred["image_embeds"] @ pred["text_embeds"].T).mean()

    batch = {
        "image": torch.rand(6, 4),
        "input_ids": torch.randint(0, 10, (9, 5)),
        "attention_mask": torch.ones(9, 5, dtype=torch.long),
        "study_id": list("abcdef"),
        "text_ids": torch.arange(9),
    }
    network = Encoders()
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=PrepareBatchImageText(),
        decollate=False,
    )
    trainer.run()
    (images, texts, study_ids, text_ids) = seen[0]
    assert (images, texts) == ((6, 3), (9, 3)), "six images and nine texts stay six and nine"
    assert study_ids == list("abcdef")
    assert torch.equal(text_ids, torch.arange(9))


def test_does_not_change_the_batch():
    batch = {"image": torch.rand(2, 4), "note": "x"}
    image, targets, args, kwargs = PrepareBatchImageText()(batch, "cpu", dtype=torch.float64)
    assert image.dtype == torch.float64
    assert batch["image"].dtype == torch.float32
    assert (targets["note"], args, kwargs) == ("x", (), {})


def test_one_key_of_the_network():
    batch = {"image": torch.rand(2, 4), "input_ids": torch.ones(2, 3)}
    assert list(PrepareBatchImageText(network_keys="input_ids")(batch, "cpu")[3]) == ["input_ids"]


def test_type_and_memory_format_are_for_the_image():
    batch = {"image": torch.rand(2, 1, 4, 4), "input_ids": torch.ones(2, 3, dtype=torch.long)}
    options = {"dtype": torch.float64, "memory_format": torch.channels_last}
    image, targets, _, _ = PrepareBatchImageText()(batch, "cpu", **options)
    assert image.dtype == torch.float64
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert targets["input_ids"].dtype == torch.long


def test_each_side_has_numbers_of_its_own_states():
    batch = {
        "label": torch.tensor([[1.0, 0.0, torch.nan]]),
        "text_label": torch.tensor([[0.0, -1.0, 1.0], [1.0, 1.0, 0.0]]),
    }
    targets = PrepareBatchImageText(label_policy=LabelPolicy())(batch)[1]
    assert targets["image_labels"].tolist() == [[1, -1, 0]]
    assert targets["text_labels"].tolist() == [[-1, 0, 1], [1, 1, -1]]
    assert "text_labels" not in PrepareBatchImageText(label_policy=LabelPolicy())({"label": batch["label"]})[1]
