"""Benchmark of image preprocessing and augmentation against the same steps in Pillow, NumPy and MONAI.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_images.py [--rounds 60]

Both run alternately in one process on one thread; the figures are medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandAffined,
    RandFlipd,
    RandGaussianSmoothd,
    RandScaleCropd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    Resized,
)
from PIL import Image

from medvl.transforms import image_augmentation, image_preprocessing

SIZE = 128


def bare_preprocessing(path: str) -> torch.Tensor:
    """The same preprocessing with Pillow and NumPy alone, for a square image."""
    pixels = np.asarray(Image.open(path), dtype=np.float32)
    low, high = np.percentile(pixels, (0.5, 99.5))
    scaled = np.clip((pixels - low) / (high - low), 0, 1)
    resized = Image.fromarray(scaled).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)[None])


def monai_augmentation() -> Compose:
    """ConVIRT's augmentation with MONAI's transforms, with one interpolation each."""
    sigma = tuple(value * SIZE / 224 for value in (0.1, 3.0))
    shift = 0.1 * SIZE
    return Compose(
        [
            RandScaleCropd("image", roi_scale=math.sqrt(0.6), max_roi_scale=1.0, random_size=True),
            Resized("image", (SIZE, SIZE), mode="bilinear"),
            RandFlipd("image", prob=0.5, spatial_axis=1),
            RandAffined(
                "image",
                prob=1.0,
                rotate_range=math.radians(20),
                translate_range=(shift, shift),
                scale_range=((-0.05, 0.05), (-0.05, 0.05)),
                padding_mode="zeros",
            ),
            RandScaleIntensityd("image", factors=0.4, prob=1.0),
            RandScaleIntensityFixedMeand("image", factors=0.4, prob=1.0),
            RandGaussianSmoothd("image", sigma_x=sigma, sigma_y=sigma, prob=1.0),
            EnsureTyped("image", track_meta=False),
        ]
    )


def milliseconds(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median times of two functions that run alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 3):
        for function, record in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            if i >= 3:
                record.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    chain, coarse = image_preprocessing(SIZE), np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)
    print(f"{'':36}{'medvl, ms':>10}{'bare, ms':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("a.png", 128), ("b.jpg", 1024)):
            path = str(Path(folder) / name)
            Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path)
            ours, theirs = milliseconds(
                lambda p=path: chain({"image": p}), lambda p=path: bare_preprocessing(p), rounds
            )
            print(f"{f'preprocess a {side}-pixel {name[2:].upper()}':36}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")
            difference = (chain({"image": path})["image"] - bare_preprocessing(path)).abs().max()
            print(f"{'  largest difference':36}{difference:10.1e}")
    study = {"image": torch.rand(1, SIZE, SIZE)}
    augment, series = image_augmentation(SIZE), monai_augmentation()
    ours, theirs = milliseconds(lambda: augment(study), lambda: series(study), 5 * rounds)
    print(f"{f'augment {SIZE} pixels (bare: MONAI)':36}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
