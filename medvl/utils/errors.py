"""The error that bad data raises.

Arguments of a wrong type, shape or value raise ``TypeError`` or ``ValueError`` as everywhere in Python. What a *data file*
got wrong raises :class:`StudyError`, so that a loader can skip the study and count it.
"""

from __future__ import annotations


class StudyError(ValueError):
    """A study that cannot be used, in one sentence that names the study, the key and the reason.

    Args:
        study_id: id of the study; never patient text.
        key: the key of the study's dictionary, or the column of the table, that is wrong.
        reason: what is wrong, and what was expected.

    Example:
        >>> str(StudyError("s17", "image", "the file images/17.png does not exist"))
        "study 's17', image: the file images/17.png does not exist"
    """

    def __init__(self, study_id: str, key: str, reason: str) -> None:
        super().__init__(study_id, key, reason)
        self.study_id, self.key, self.reason = study_id, key, reason

    def __str__(self) -> str:
        return f"study {self.study_id!r}, {self.key}: {self.reason}"


class DiskFullError(OSError):
    """No space is left for a file; ``filename`` is the file, ``strerror`` names the disk."""


def plain_reason(error: BaseException) -> str:
    """Why a file cannot be read, from what another library raised: one line, without a full stop, nothing of its insides.

    Example:
        >>> plain_reason(RecursionError("maximum recursion depth exceeded")), plain_reason(ValueError("bad magic.\\nMore."))
        ('it is nested too deeply', 'bad magic')
    """
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:2000].removesuffix(".")
    if isinstance(error, RecursionError) or "recursion" in text:
        return "it is nested too deeply"
    if isinstance(error, TypeError | AttributeError | IndexError | KeyError):
        return "its content is not of the form that is expected"
    if "invalid literal for" in text or "could not convert string" in text:
        return "it holds other text where a number is expected"
    return text
