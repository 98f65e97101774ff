"""What the dictionary transforms share: the loop over a study's keys, errors that name the study, visible signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from medvl.utils.checks import error_message
from medvl.utils.errors import StudyError


class StudyMapTransform(MapTransform):
    """Base of the dictionary transforms: an array transform applied to keys of a study.

    A subclass states its arguments in ``__init__`` and makes the array transform from them. Results replace the values
    under ``keys`` unless the subclass overrides :meth:`updates`.

    Args:
        keys: keys of the study to read.
        transform: the array transform.
        allow_missing_keys: skip keys that a study lacks.

    Raises:
        ValueError: If the subclass has ``fixed_outputs`` and ``keys`` names more than one key.
    """

    fixed_outputs: ClassVar[bool] = False
    """Whether results go to keys that do not depend on the input key, so that there can only be one of those."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # MapTransform.__new__(cls, *args, **kwargs) would hide the arguments of __init__ from Sphinx and from editors.
        signature = inspect.signature(cls.__init__, eval_str=True)
        _, *parameters = signature.parameters.values()
        cls.__signature__ = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)

    def __init__(self, keys: KeysCollection, transform: Callable[..., Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if self.fixed_outputs and len(self.keys) != 1:
            raise ValueError(
                error_message("keys", "be a single key, since the results go to fixed keys", list(self.keys))
            )
        self.transform: Any = transform

    def updates(self, data: Mapping[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        """Transform the value under one key, and return what changes in the study."""
        return {key: self.transform(data[key])}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the study with the results.

        Args:
            data: the study; it is not changed.

        Raises:
            KeyError: If a key is missing and ``allow_missing_keys`` is False.
            medvl.utils.errors.StudyError: If the transform refuses a value.
        """
        out = dict(data)
        for key in self.key_iterator(data):
            with study_error_context(data, key):
                out.update(self.updates(data, key))
        return out


class RandStudyMapTransform(Randomizable, StudyMapTransform):
    """Base of the random dictionary transforms; the array transform draws, from the random state of this one."""

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandStudyMapTransform:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def randomize(self, data: Any) -> None:
        """Draw for one value."""
        self.transform.randomize(data)


@contextmanager
def study_error_context(data: Mapping[Any, Any], key: Hashable) -> Iterator[None]:
    """Turn the errors of a study's value into a :class:`medvl.utils.errors.StudyError` that names study and key.

    Args:
        data: the study, with its ``study_id`` if it has one.
        key: the key of the value.

    Raises:
        StudyError: In place of a ``TypeError``, ``ValueError`` or ``OSError``.

    Example:
        >>> with study_error_context({"study_id": "s1"}, "age"):
        ...     int("one")
        Traceback (most recent call last):
        medvl.utils.errors.StudyError: study 's1', age: invalid literal for int() with base 10: 'one'
    """
    try:
        yield
    except StudyError:
        raise
    except (TypeError, ValueError, OSError) as error:
        raise StudyError(study_id_of(data), str(key), str(error)) from error


def study_id_of(data: Mapping[Any, Any]) -> str:
    """The id of a study, for an error; "without an id" for a study that has none."""
    return str(data.get("study_id", "without an id"))
