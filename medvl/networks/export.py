"""Export of both encoders of a dual encoder to files of ``torch.export`` and ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from medvl.networks.blocks.projection import pool_image
from medvl.networks.nets import DualEncoder
from medvl.utils.checks import check_option, error_message
from medvl.utils.extras import require_extra
from medvl.utils.modes import eval_mode

FORMATS = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-4


class ProjectedEncoder(nn.Module):
    """An encoder with its projection, from inputs to unit vectors."""

    def __init__(self, encoder: nn.Module, projection: nn.Module, pooling: str = "encoder") -> None:
        super().__init__()
        self.encoder, self.projection, self.pooling = encoder, projection, pooling

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return pool_image(self.encoder(*inputs), self.projection, self.pooling)


def export_encoders(
    model: DualEncoder, folder: str | Path, formats: Sequence[str] = ("torch", "onnx")
) -> dict[str, Path]:
    """Export both encoders of a dual encoder with their projections, and check every file against the model to 1e-4.

    The image encoder takes ``image`` (N, C, H, W[, D]) of the model's ``image_size``; the text encoder takes ``input_ids`` and
    ``attention_mask`` (M, L), int64. Each gives ``embeds``, unit vectors (N, D). N, M and L (up to the text encoder's
    ``max_length``) may vary between calls. The check runs the files on the CPU with other N, M and L than they were
    traced with. ONNX needs ``pip install "medvl[onnx]"``; weights of more than 1.5 GB are in a second file.

    Args:
        model: the dual encoder; its training mode is not changed.
        folder: the folder of the files, created if it is missing.
        formats: "torch" (read by ``torch.export.load``), "onnx", or both.

    Returns:
        The files by name: ``image_encoder.pt2``, ``text_encoder.pt2``, ``image_encoder.onnx``, ``text_encoder.onnx``.

    Raises:
        ValueError: If a format is unknown, or a weight is not float32.
        MissingExtraError: If ONNX's packages are not installed.
        RuntimeError: If the embeddings of a file differ from the model's by more than 1e-4.

    Example:
        >>> import tempfile
        >>> from medvl.networks import convirt
        >>> model = convirt("small", image_size=32, embed_dim=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = export_encoders(model, folder, formats=["torch"])
        ...     image_encoder = torch.export.load(files["image_encoder.pt2"]).module()
        ...     image_encoder(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5, 8])
    """
    for name in formats:
        check_option(name, "formats", tuple(FORMATS))
    if other := [weight.dtype for weight in model.parameters() if weight.dtype != torch.float32]:
        raise ValueError(error_message("model", "have float32 weights (model.float())", other[0]))
    if "onnx" in formats:
        require_extra("ONNX export", "onnx")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for name, encoder, example, check, dynamic in _encoders(model):
        with eval_mode(encoder), torch.no_grad():
            expected = encoder(*check)  # first, as some Hugging Face models initialize themselves in the first call
            program = torch.export.export(encoder, example, dynamic_shapes={"inputs": dynamic}, strict=True)
            for kind in formats:
                path = folder / f"{name}{FORMATS[kind]}"
                (_write_torch if kind == "torch" else _write_onnx)(program, path, INPUTS[name])
                exported = (_run_torch if kind == "torch" else _run_onnx)(path, check)
                difference = (exported - expected.cpu()).abs().max().item()
                if not difference <= TOLERANCE:
                    raise RuntimeError(
                        f"{path.name} differs from the model by {difference:.1e}, more than {TOLERANCE:.0e}."
                    )
                files[path.name] = path
    return files


INPUTS = {"image_encoder": ["image"], "text_encoder": ["input_ids", "attention_mask"]}


def _encoders(model: DualEncoder) -> Iterator[tuple[str, ProjectedEncoder, Any, Any, Any]]:
    """Name and module of each encoder, inputs to trace, other inputs to check, and the axes that vary."""
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
    yield (
        "image_encoder",
        ProjectedEncoder(model.image_encoder, model.image_projection, model.image_pooling),
        images(2),
        images(3),
        ({0: count},),
    )
    both = {0: count, 1: Dim("tokens", min=2, max=longest)}
    encoder = ProjectedEncoder(model.text_encoder, model.text_projection)
    yield "text_encoder", encoder, texts(2, min(longest, 16)), texts(3, min(longest, 11)), (both, both)


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
