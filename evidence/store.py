"""Results: one small JSON file for each arm and seed, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from evidence.arms import IMAGES_ALONE, Arm, settings_of
from evidence.scales import DATA_SEED, Scale
from medvl.utils.io import write_json
from medvl.workflows import config_files

ENVIRONMENT = ("versions", "python", "machine", "date", "commit")
"""What a result, and each part of what it keeps of an earlier one, says of where it was made."""

PACKAGES = ("torch", "monai", "transformers", "scikit-learn", "numpy")
ROOT = Path(__file__).parents[1]


def result_key(arm: Arm, scale: Scale, seed: int) -> str:
    """A hash of all that was set for a training and its measures: the arm, the scale and the recipe's configuration.

    Results with another key are of another experiment, and are made again. A comment in a recipe's file does not change it.
    """
    scale = arm.scale(scale)
    recipe = "convirt" if arm.recipe in IMAGES_ALONE else arm.recipe
    content = {
        "settings": settings_of(arm, scale, seed),
        "recipe": arm.recipe,
        "sources": arm.sources,
        "without": arm.without,
        "trained": arm.trained,
        "test": arm.test,
        "scale": {name: value for name, value in vars(scale).items() if name not in ("name", "seeds")},
        "data_seed": DATA_SEED,
        "configuration": _configuration(recipe),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class ResultsError(ValueError):
    """Results files that cannot be used, as one sentence."""


class Store:
    """The results files of a folder, ``SCALE/ARM/seed-N.json``.

    Args:
        folder: where they are; made when the first is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, scale: str, arm: str, seed: int) -> Path:
        """The file of a result."""
        return self.folder / scale / arm / f"seed-{seed}.json"

    def read(self, scale: str, arm: str, seed: int) -> dict[str, Any] | None:
        """A result, whatever its key; None if there is none.

        Raises:
            ResultsError: If the file is damaged, or holds the result of another arm or seed.
        """
        path = self.path(scale, arm, seed)
        if not path.is_file():
            return None
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{path} is damaged; delete it, and it is made again.") from error
        damaged = _damage(result)
        if damaged:
            raise ResultsError(f"{path} is damaged: {damaged}; delete it, and it is made again.")
        if (result["arm"], result["seed"]) != (arm, seed):
            found = f"{result['arm']}, seed {result['seed']}"
            raise ResultsError(f"{path} must hold the result of {arm}, seed {seed}, got {found}; delete it.")
        return result

    def write(self, scale: str, arm: str, seed: int, result: Mapping[str, Any]) -> Path:
        """Write a result, in place of the one that was there."""
        path = self.path(scale, arm, seed)
        write_json(path, dict(result))
        return path

    def same_experiment(self, scale: Scale, arm: Arm, seed: int) -> dict[str, Any] | None:
        """The result of this very experiment, whatever was measured; None if there is none."""
        result = self.read(scale.name, arm.name, seed)
        return result if result is not None and result["key"] == result_key(arm, scale, seed) else None

    def seeds(self, scale: str, arm: str) -> list[int]:
        """The seeds of an arm's results, in ascending order.

        Raises:
            ResultsError: If the folder has a JSON file of another name.
        """
        found = []
        for path in (self.folder / scale / arm).glob("*.json"):
            number = path.stem.removeprefix("seed-")
            if not number.isdecimal() or path != self.path(scale, arm, int(number)):
                raise ResultsError(f"{path} must be called seed-N.json, as results are; rename or delete it.")
            found.append(int(number))
        return sorted(found)

    def figures(self, scale: str, arm: str) -> dict[int, dict[str, float]]:
        """An arm's figures by seed."""
        results = {seed: self.read(scale, arm, seed) for seed in self.seeds(scale, arm)}
        return {seed: result["figures"] for seed, result in results.items() if result is not None}

    def results(self, scale: str) -> list[dict[str, Any]]:
        """Every result of a scale, by arm and seed."""
        arms = sorted(path.name for path in (self.folder / scale).glob("*") if path.is_dir())
        found = (self.read(scale, arm, seed) for arm in arms for seed in self.seeds(scale, arm))
        return [result for result in found if result is not None]


@functools.lru_cache
def _configuration(recipe: str) -> list[Any]:
    """The content of a recipe's files, which many arms share."""
    return [yaml.safe_load(path.read_text()) for path in config_files(recipe)]


def _damage(result: Any) -> str | None:
    """What is wrong with the content of a results file; None for a whole one."""
    if not isinstance(result, dict):
        return "it is no JSON object"
    names = ("arm", "seed", "key", "steps", "seconds", "measures", "figures", *ENVIRONMENT)
    missing = [name for name in names if name not in result]
    if missing:
        return f"{', '.join(missing)} missing"
    wrong = [name for name in ("arm", "key", "date") if not isinstance(result[name], str)]
    wrong += [name for name in ("seed", "steps") if not _is_number(result[name])]
    wrong += [name for name in ("seconds", "figures", "versions") if not isinstance(result[name], dict)]
    wrong += [] if _are_names(result["measures"]) else ["measures"]
    kept = result.get("kept", [])
    wrong += [] if isinstance(kept, list) and all(map(_is_origin, kept)) else ["kept"]
    if wrong:
        return f"{', '.join(wrong)} of another type"
    values = {**result["seconds"], **{name: value for name, value in result["figures"].items() if value is not None}}
    wrong = [name for name, value in values.items() if not _is_number(value)]
    if wrong:
        return f"{', '.join(wrong)} must be a finite number"
    missing = [f"seconds of the {name}" for name in ("training", "measures") if name not in result["seconds"]]
    return f"{', '.join(missing)} missing" if missing else None


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_origin(part: Any) -> bool:
    """Whether that can be part of what a result keeps: names of measures, and where they are from."""
    if not isinstance(part, dict) or not {"measures", *ENVIRONMENT} <= part.keys():
        return False
    return _are_names(part["measures"]) and isinstance(part["versions"], dict) and isinstance(part["date"], str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def environment() -> dict[str, Any]:
    """What a result depends on beside its settings: versions, machine, date, and the commit of the code."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the code, with a plus sign where files were changed since; None outside a repository."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "medvl", "evidence/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
