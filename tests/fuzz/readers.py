"""A sound file of every kind that the commands read, and how they read it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas
import public_layouts
import pydicom
import torch
from PIL import Image
from transformers import BertConfig

from medvl.data import OpenIReports, label_texts, read_manifest
from medvl.data.shard_verification import verify_packed
from medvl.evaluation import Embeddings, load_embeddings
from medvl.evaluation.benchmarks import BENCHMARKS
from medvl.evaluation.case_selection import CHEXPERT_8X200_CLASSES
from medvl.handlers import read_metrics
from medvl.handlers.checkpoint_file import load_checkpoint, save_checkpoint
from medvl.networks import DualEncoder, ImageEncoder, TextEncoder
from medvl.networks.encoders.weight_files import read_weights
from medvl.networks.nets.text_processor import TextProcessor
from medvl.text import load_prompt_templates, load_vocabulary
from medvl.transforms import LoadStudyImage, train_tokenizer
from medvl.transforms.packed_image import read_settings
from medvl.utils.tar_members import close_files
from medvl.workflows import PackSettings, SplitRecord, TrainedRun, config_text, pack_studies
from medvl.workflows.model_input import ModelInput
from medvl.workflows.run_records import read_skipped

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
XML = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR7"/>
<AbstractText Label="FINDINGS">No edema. Small effusion.</AbstractText><AbstractText Label="IMPRESSION">Stable.</AbstractText>
<major>Pleural Effusion/small</major><parentImage id="CXR7_1"/></eCitation>"""
ROWS = [
    {"image": f"{i}.png", "report": "No edema, a \"small\" effusion;\nline é.", "patient_id": f"p{i}", "study_id": f"s{i}",
     "Edema": (1, 0, -1)[i % 3]} for i in range(6)
]  # fmt: skip
EXTENDED = """version: 1
name: spine
extends: chexpert14
findings:
  Scoliosis:
    terms:
      - (scoliosis|(lateral|left|right) curvature of the spine)
"""
RECIPE = "layers: [convirt]\nepochs: 3   # passes\nlearning_rate: 0.001\ncolumns: {image_column: image}\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        path: the file in the folder of its kind.
        read: reads it, given its path.
    """

    path: Path
    read: Callable[[Path], Any]


def read_run(folder: Path) -> None:
    run = TrainedRun(folder)
    run.class_prompts(["Edema"])
    run.split_record.count_in([{"study_id": "s1", "image": "a.png"}], "train")
    run.model.encode_text(["no edema"])
    read_metrics(folder / "metrics.jsonl")
    read_skipped(folder)


def read_packed(folder: Path) -> None:
    close_files()
    read_settings.cache_clear()
    image = LoadStudyImage()
    for study in read_manifest(f"shards:{folder}").studies:
        image(study["image"])
    label_texts(["No edema."], cache=folder / "text_labels.npz")
    verify_packed(folder)


def make(root: Path) -> dict[str, Kind]:
    """Write a sound file of every kind under a folder."""
    kinds: dict[str, Kind] = {}

    def add(name: str, read: Callable[[Path], Any], content: bytes | Callable[[Path], Any]) -> None:
        path = root / name.replace("/", "_") / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        kinds[name] = Kind(path, read)

    draw = np.random.default_rng(0)
    gray = draw.integers(0, 255, (12, 10), dtype=np.uint8)
    columns = {"label_column": ["Edema"]}
    header = ",".join(ROWS[0])
    cells = [['"' + str(v).replace('"', '""') + '"' for v in row.values()] for row in ROWS]
    for name, text in {
        "cases.csv": "\n".join([header, *(",".join(row) for row in cells)]),
        "cases.tsv": "\n".join([header.replace(",", "\t"), *("\t".join(row) for row in cells)]),
        "cases.json": json.dumps({"training": ROWS[:4], "validation": ROWS[4:]}, indent=1),
        "cases.jsonl": "\n".join(map(json.dumps, ROWS)),
    }.items():
        add(name, lambda path: read_manifest(path, **columns), text.encode())
        for i in range(6):
            Image.fromarray(gray).save(kinds[name].path.parent / f"{i}.png")
    image = LoadStudyImage()
    for name, picture in {"a.png": gray, "rgb.png": np.stack([gray] * 3, -1), "a.jpg": gray, "a.bmp": gray, "a.tif": gray,
                          "a.webp": gray, "a.gif": gray, "16.png": gray.astype(np.uint16) * 99,
                          "16.tif": gray.astype(np.uint16), "a.pgm": gray}.items():  # fmt: skip
        add(name, image, Image.fromarray(picture).save)
    volume = nibabel.Nifti1Image(draw.normal(size=(5, 6, 7)).astype(np.float32), np.diag([2, 2, 3, 1]))
    for name in ("a.nii", "a.nii.gz"):
        add(name, image, lambda path: nibabel.save(volume, path))
    for name in ("ct1.dcm", "MR_small.dcm"):
        sample = Path(pydicom.data.get_testdata_file("CT_small.dcm" if name[0] == "c" else name, download=False))
        add(name, image, sample.read_bytes())
    add("a.npy", image, lambda path: np.save(path, gray))
    add("a.npz", image, lambda path: np.savez(path, gray))
    add("c.npz", image, lambda path: np.savez_compressed(path, gray))
    add("a.nrrd", image, b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 2 2\nencoding: raw\n\nabcd")
    add(
        "a.mha",
        image,
        b"ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nabcd",
    )
    embeddings = Embeddings(torch.eye(3), torch.eye(3), labels=torch.ones(3, 1))
    for name in ("e.npz", "e.parquet"):
        add(name, load_embeddings, embeddings.save)
    embeddings.save(root / "e")
    for file in sorted((root / "e").iterdir()):
        kinds[f"e/{file.name}"] = Kind(file, lambda path: load_embeddings(path.parent))
    add("words.yaml", load_vocabulary, builtin("vocabularies", "chest_ct.yaml"))
    add("prompts.yaml", load_prompt_templates, builtin("prompts", "chexpert14.yaml"))
    add("recipe.yaml", config_text, RECIPE.encode())
    add("report.xml", lambda path: OpenIReports(path.parent), XML.encode())
    add("reports.tgz", OpenIReports, archive())
    state = {"a": torch.ones(3, 4), "b": torch.zeros(2)}
    add("weights.bin", read_weights, lambda path: torch.save(state, path))
    add("checkpoint.pt", load_checkpoint, lambda path: save_checkpoint({"network": state, "epoch": 1}, path))
    add("extended.yaml", load_vocabulary, EXTENDED.encode())
    frame = pandas.DataFrame(ROWS)
    for name, write in {"cases.parquet": frame.to_parquet, "cases.xlsx": frame.to_excel}.items():
        add(name, lambda path: read_manifest(path, **columns), lambda path, write=write: write(path, index=False))
        for i in range(6):
            Image.fromarray(gray).save(kinds[name].path.parent / f"{i}.png")
    packed = root / "packed"
    pack_studies(kinds["cases.csv"].path, packed, PackSettings(image_size=12, shard_size=4), columns=columns)
    for file in sorted(packed.iterdir()):
        kinds[f"packed/{file.name}"] = Kind(file, lambda path: read_packed(packed))
    for name, benchmark in BENCHMARKS.items():
        public = root / "benchmarks" / name
        labels = [{finding: "1.0"} for finding in benchmark.classes or CHEXPERT_8X200_CLASSES for _ in range(20)]
        options = {"labels": [*labels, {}]} if benchmark.dataset == "chexpert" else {}
        public_layouts.WRITERS[benchmark.dataset](public, **options)
        tables = [path for path in public.rglob("*") if path.suffix in (".csv", ".gz", ".json", ".xlsx", ".txt")]
        for file in sorted(tables):
            if not file.name.endswith(".nii.gz"):
                kinds[f"{name}/{file.name}"] = Kind(
                    file, lambda path, b=benchmark, public=public: b.read(public, on_error="skip")
                )
    run = write_run(root / "run")
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        kinds[f"run/{file.relative_to(run)}"] = Kind(file, lambda path: read_run(run))
    return kinds


def builtin(kind: str, name: str) -> bytes:
    """A file of the text package."""
    import medvl.text

    return (Path(medvl.text.__file__).parent / kind / name).read_bytes()


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        info = tarfile.TarInfo("reports/7.xml")
        info.size = len(XML.encode())
        file.addfile(info, io.BytesIO(XML.encode()))
    return stream.getvalue()


def write_run(folder: Path) -> Path:
    """A run folder as the training leaves it, but for the checksums, so that damage reaches what reads the files."""
    tokenizer = train_tokenizer(["no edema . small effusion"], min_patients=1)
    text = TextEncoder(BertConfig(vocab_size=len(tokenizer), **SIZES))
    model = DualEncoder(
        ImageEncoder("resnet10", image_size=32, width=0.1), text, text_processor=TextProcessor(tokenizer), embed_dim=4
    )
    model.save_pretrained(folder / "model")
    ModelInput(image=[], report=[], problems={}).save(folder / "model")
    (folder / "model" / "SHA256SUMS").unlink()
    (folder / "model" / "README.md").unlink()
    prompts = {"Edema": {"present": ["Edema."], "absent": ["No edema."]}}
    (folder / "model" / "prompts.json").write_text(json.dumps(prompts))
    (folder / "config.yaml").write_text("data: cases.csv\ncolumns: {}\nhu_range: [-1000, 1000]\nepochs: 1\n")
    environment = {"seed": 0, "tables_sha256": [], "data_summary": "6 rows", "studies": {"train": 6}}
    (folder / "environment.json").write_text(json.dumps(environment))
    SplitRecord.from_studies([{"study_id": "s1", "patient_id": "p", "split": "train"}]).save(folder)
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5, "seconds": 2.0}\n{"epoch": 2, "loss": 0.4}\n')
    (folder / "skipped.jsonl").write_text('{"study_id": "s2", "key": "image", "reason": "it is gone"}\n')
    return folder
