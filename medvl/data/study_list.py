"""What the readers of public sets have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from medvl.utils.errors import StudyError, check_on_error


class StudyList(Sequence[dict[str, Any]]):
    """A datalist that a reader fills: one dictionary a study, and the errors of those that were left out.

    Args:
        on_error: ``"raise"`` on a bad study, ``"skip"`` to leave it out and list its error in ``skipped``.

    Raises:
        ValueError: for an unknown ``on_error``.
    """

    def __init__(self, on_error: str = "raise") -> None:
        self._on_error = check_on_error(on_error)
        self._studies: list[dict[str, Any]] = []
        self.skipped: list[StudyError] = []

    @contextmanager
    def _reading_a_study(self) -> Iterator[None]:
        """What is read inside may be a bad study."""
        try:
            yield
        except StudyError as error:
            if self._on_error == "raise":
                raise
            self.skipped.append(error)

    def __len__(self) -> int:
        return len(self._studies)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._studies[index]
