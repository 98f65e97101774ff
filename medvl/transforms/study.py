"""What the dictionary transforms share: errors that name the study, and the check of a single key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from medvl.utils.errors import StudyError

Result = TypeVar("Result")


def named(data: Mapping[Hashable, Any], key: Hashable, call: Callable[..., Result], *args: Any) -> Result:
    """Call a transform on one key of a study; what the data got wrong becomes an error that names study and key.

    Args:
        data: the study, with its ``study_id`` where it has one.
        key: the key that ``args`` came from.
        call: the transform.
        args: what to call it with.

    Returns:
        What ``call`` returns.

    Raises:
        StudyError: for the ``TypeError``, ``ValueError`` or ``OSError`` of ``call``.

    Example:
        >>> named({"study_id": "s1"}, "report", int, "one")
        Traceback (most recent call last):
        medvl.utils.errors.StudyError: study 's1', report: invalid literal for int() with base 10: 'one'
    """
    try:
        return call(*args)
    except StudyError:
        raise
    except (TypeError, ValueError, OSError) as error:
        raise StudyError(study_name(data), str(key), str(error)) from error


def study_name(data: Mapping[Any, Any]) -> str:
    """The study's id, for an error."""
    return str(data.get("study_id", "without an id"))


def require_one_key(keys: Sequence[Hashable]) -> None:
    """Raise ``ValueError`` where a transform that writes fixed keys is given several keys to read."""
    if len(keys) != 1:
        raise ValueError(f"keys must be a single key, since the results go to fixed keys, got {list(keys)}")
