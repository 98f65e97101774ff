"""How large a form of the evidence is: the data, the seeds and the effort, the same for every arm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A form of the evidence.

    Args:
        name: of the form, and of the folder of its results.
        seeds: of the trainings; the data and its splits are the same for all of them.
        studies: of the synthetic set, of which about 70 % are for training.
        image_size: side of the images in pixels.
        epochs: passes over the training split.
        batch_size: studies in a step.
        preset: of the network.
        embed_dim: width of the embeddings.
        device: where the models are trained.
        fine_tune_epochs: of the fine-tuning.
        shots: numbers of labeled cases of the few-shot segmentation.
        draws: of those cases.
        decoder_steps: optimizer steps of a decoder.
        real_epochs: passes over the real images.
        real_studies: real images, and real reports, that are used; None for all.
    """

    name: str
    seeds: tuple[int, ...]
    studies: int
    image_size: int
    epochs: int
    batch_size: int = 32
    preset: str = "small"
    embed_dim: int = 128
    device: str = "cpu"
    fine_tune_epochs: int = 10
    shots: tuple[int, ...] = (5, 10)
    draws: int = 3
    decoder_steps: int = 100
    real_epochs: int = 2
    real_studies: int | None = None

    @property
    def is_quick(self) -> bool:
        """Whether it only shows that everything runs."""
        return self.name == "quick"


DATA_SEED = 0
"""Seed of the synthetic set."""

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "quick",
            seeds=(0,),  # each arm once: that everything runs is all that it shows
            studies=120,
            image_size=32,
            epochs=1,
            embed_dim=32,
            fine_tune_epochs=1,
            draws=1,
            decoder_steps=2,
            real_epochs=1,
            real_studies=64,
        ),
        Scale("full", seeds=(0, 1, 2, 3, 4), studies=3000, image_size=64, epochs=4, fine_tune_epochs=4, draws=2),
        # Of arms that have a scale of their own in the full form: the data of the demonstration.
        Scale("demo", seeds=(0, 1, 2, 3, 4), studies=4500, image_size=64, epochs=9),
        Scale("long", seeds=(0, 1, 2, 3, 4), studies=4500, image_size=64, epochs=24),
        Scale(
            "gpu",
            seeds=(0, 1, 2, 3, 4),
            studies=20000,
            image_size=128,
            epochs=30,
            batch_size=128,
            preset="base",
            embed_dim=512,
            device="cuda",
            real_epochs=5,
        ),
    )
}
