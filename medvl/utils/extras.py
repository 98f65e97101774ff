"""Optional dependencies: which extra of ``setup.cfg`` installs what, and the error where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "monai": (
        "monai",
        "ignite",
        "einops",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "safetensors",
        "sklearn",
        "nibabel",
        "pydicom",
        "PIL",
        "tqdm",
    ),
    "evaluation": ("pandas", "matplotlib", "jinja2", "ruamel", "fire"),
    "cli": ("typer", "rich"),
    "peft": ("peft",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "itk": ("itk",),
    "tables": ("pyarrow", "openpyxl"),
    "faiss": ("faiss",),
    "tensorboard": ("tensorboard",),
}
"""Extra -> the modules that it installs, apart from those of the extra that it includes."""

_INCLUDED = {"evaluation": "monai", "cli": "evaluation"}


class MissingExtraError(ModuleNotFoundError):
    """A part of medvl was used whose dependencies are not installed.

    Args:
        feature: what was used, as the subject of the sentence.
        extra: the extra that installs its dependencies.
        module: the module that is missing.

    Example:
        >>> print(MissingExtraError("medvl.transforms", "monai", "monai"))
        medvl.transforms needs monai: pip install "medvl[monai]"
    """

    def __init__(self, feature: str, extra: str, module: str) -> None:
        super().__init__(f'{feature} needs {module}: pip install "medvl[{extra}]"', name=module)


def require_extra(feature: str, extra: str) -> None:
    """Raise where a dependency that an extra installs is missing. Nothing is imported.

    Args:
        feature: what needs the extra, as the subject of the error's sentence: ``"medvl.transforms"``, ``"ONNX export"``.
        extra: a key of :data:`EXTRAS`.

    Raises:
        MissingExtraError: If a module of the extra is not installed.
    """
    for module in extra_modules(extra):
        if find_spec(module) is None:
            raise MissingExtraError(feature, extra, module)


def extra_modules(extra: str) -> tuple[str, ...]:
    """The modules that an extra installs, with those of the extra that it includes.

    Example:
        >>> extra_modules("peft")
        ('peft',)
    """
    included = _INCLUDED.get(extra)
    return (extra_modules(included) if included else ()) + EXTRAS[extra]
