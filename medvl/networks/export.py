"""Both towers of a dual encoder as files that other programs run: ``torch.export`` and ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim, ExportedProgram

from medvl.networks.nets import DualEncoder
from medvl.utils.extras import require_extra
from medvl.utils.modes import eval_mode

FORMATS = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-4


class Tower(nn.Module):
    """An encoder with its projection: inputs to unit vectors."""

    def __init__(self, encoder: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projection = encoder, projection

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.projection(self.encoder(*inputs)["embed"]).float(), dim=-1)


def export_towers(
    model: DualEncoder, folder: str | Path, formats: Sequence[str] = ("torch", "onnx")
) -> dict[str, Path]:
    """Writes both towers of a dual encoder, and checks every file against the model to 1e-4.

    The image tower takes ``image`` (N, C, H, W[, D]) of the model's ``image_size``; the text tower takes ``input_ids`` and
    ``attention_mask`` (M, L), int64. Each gives ``embeds``, unit vectors (N, D). N, M and L (up to the text tower's
    ``max_length``) may differ from call to call. The check runs the files on the CPU on another N, M and L than they were
    traced with. ONNX needs ``pip install "medvl[onnx]"``; weights beyond 1.5 GB lie in a second file beside it.

    Args:
        model: the dual encoder; it stays as it is, in training or not.
        folder: where the files go, made where it is missing.
        formats: "torch" (read by ``torch.export.load``), "onnx", or both.

    Returns:
        The files by name: ``image_tower.pt2``, ``text_tower.pt2``, ``image_tower.onnx``, ``text_tower.onnx``.

    Raises:
        ValueError: an unknown format.
        MissingExtraError: If ONNX's packages are not installed.
        RuntimeError: where a file's embeddings differ from the model's by more than 1e-4.

    Example:
        >>> import tempfile
        >>> from medvl.networks import convirt
        >>> model = convirt("small", image_size=32, embed_dim=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = export_towers(model, folder, formats=["torch"])
        ...     image_tower = torch.export.load(files["image_tower.pt2"]).module()
        ...     image_tower(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 8])
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"formats must be some of {', '.join(FORMATS)}, got {name!r}.")
    if "onnx" in formats:
        require_extra("ONNX export", "onnx")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for name, tower, example, check, dynamic in _towers(model):
        with eval_mode(tower), torch.no_grad():
            expected = tower(*check)  # first, as some Hugging Face models set themselves up in their first call
            program = torch.export.export(tower, example, dynamic_shapes={"inputs": dynamic}, strict=True)
            for kind in formats:
                path = folder / f"{name}{FORMATS[kind]}"
                (_write_torch if kind == "torch" else _write_onnx)(program, path, INPUTS[name])
                given = (_run_torch if kind == "torch" else _run_onnx)(path, check)
                difference = (given - expected.cpu()).abs().max().item()
                if not difference <= TOLERANCE:
                    raise RuntimeError(
                        f"{path.name} differs from the model by {difference:.1e}, more than {TOLERANCE:.0e}."
                    )
                files[path.name] = path
    return files


INPUTS = {"image_tower": ["image"], "text_tower": ["input_ids", "attention_mask"]}


def _towers(model: DualEncoder) -> Iterator[tuple[str, Tower, Any, Any, Any]]:
    """Each tower's name, module, inputs to trace, other inputs to check, and which of their axes vary."""
    generator = torch.Generator().manual_seed(0)
    device = model.device

    def images(count: int) -> tuple[torch.Tensor]:
        shape = (count, model.image_encoder.in_channels, *(model.image_size,) * model.spatial_dims)
        return (torch.rand(shape, generator=generator).to(device),)

    def texts(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(model.text_encoder.vocab_size, (count, length), generator=generator)
        lengths = torch.randint(1, length + 1, (count, 1), generator=generator)
        return ids.to(device), (torch.arange(length) < lengths).long().to(device)

    longest = model.text_encoder.max_length
    count = Dim("batch", min=1)
    yield "image_tower", Tower(model.image_encoder, model.image_projection), images(2), images(3), ({0: count},)
    both = {0: count, 1: Dim("tokens", min=2, max=longest)}
    tower = Tower(model.text_encoder, model.text_projection)
    yield "text_tower", tower, texts(2, min(longest, 16)), texts(3, min(longest, 11)), (both, both)


def _write_torch(program: ExportedProgram, path: Path, names: list[str]) -> None:
    torch.export.save(program, path)


def _run_torch(path: Path, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.export.load(path).module()(*inputs).cpu()


def _write_onnx(program: ExportedProgram, path: Path, names: list[str]) -> None:
    size = sum(value.nbytes for value in program.state_dict.values())
    torch.onnx.export(
        program,
        f=path,
        input_names=names,
        output_names=["embeds"],
        external_data=size > 1.5e9,  # protobuf holds at most 2 GB
        verbose=False,
    )


def _run_onnx(path: Path, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: x.cpu().numpy() for n, x in zip(names, inputs, strict=True)})[0])
