"""Benchmark of packed studies: studies a second against DICOM files, memory over many studies, the start of an epoch.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_shards.py                     # 200 DICOM files of 1024 x 1024
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_shards.py --memory 100000     # memory while so many studies are read
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_shards.py --rows 1000000      # seconds and memory until the first batch
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_shards.py --quick             # what CI runs, in seconds

The files are drawn in a temporary folder. Both kinds are read by turns, by the loader of the recipes in one process, and the
files are in the cache of the operating system: a disk or a network adds its time to the larger files.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import SelectItemsd
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medvl.data import StudyDataset, StudyLoader, read_manifest
from medvl.data.shards import FORMAT, STUDIES, Sample, ShardColumns, shard_name
from medvl.transforms import image_preprocessing
from medvl.transforms.packed_image import INDEX, encode_image
from medvl.workflows import PackSettings, pack_studies

SIZE = 224
REPORT = (
    "FINDINGS: The heart is normal in size. No focal consolidation, effusion or pneumothorax. IMPRESSION: Study {}."
)


def write_dicom(path: Path, side: int, seed: int) -> None:
    """A radiograph of 12 bits, uncompressed, as it comes from a detector."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.Modality, file.PhotometricInterpretation = "DX", "MONOCHROME2"
    file.Rows = file.Columns = side
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 1, 16, 12, 11, 0
    file.WindowCenter, file.WindowWidth = 2048, 4096
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.random((1, 1, 24, 24)))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0, 0].clamp(0, 1).numpy()
    pixels = (smooth * 3800 + generator.normal(0, 40, (side, side))).clip(0, 4095)
    file.PixelData = pixels.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)


def loader(location: Path | str, size: int, batch_size: int = 16) -> StudyLoader:
    """Shuffled batches of images, as a recipe reads them before augmentation."""
    steps = [image_preprocessing(size), SelectItemsd(["image", "study_id"])]
    return StudyLoader(StudyDataset(read_manifest(location).studies, steps), batch_size, shuffle=True)


def rates(batches: StudyLoader) -> tuple[float, float]:
    """Studies a second of one epoch, by the clock and by the processor's time of this process."""
    start, used = time.perf_counter(), time.process_time()
    number = sum(len(batch["study_id"]) for batch in batches)
    return number / (time.perf_counter() - start), number / (time.process_time() - used)


def compare_with_dicom(folder: Path, count: int, side: int, size: int, rounds: int) -> float:
    """Print studies a second from DICOM files and from shards of each type; the ratio for uint8."""
    (folder / "dicom").mkdir()
    for i in range(count):
        write_dicom(folder / "dicom" / f"{i}.dcm", side, i)
    rows = "".join(f'{i}.dcm,s{i},"{REPORT.format(i)}"\n' for i in range(count))
    (folder / "dicom" / "cases.csv").write_text("image,study_id,report\n" + rows)
    loaders = {"DICOM files": loader(folder / "dicom" / "cases.csv", size)}
    bytes_of = {"DICOM files": sum(path.stat().st_size for path in (folder / "dicom").glob("*.dcm"))}
    for dtype in ("uint8", "uint16", "float16"):
        begun = time.process_time()
        settings = PackSettings(size, dtype=dtype, shard_size=100, vocabulary=None)
        summary = pack_studies(folder / "dicom" / "cases.csv", folder / dtype, settings)
        name = f"shards, {dtype}"
        print(f"packed as {dtype}: {count / (time.process_time() - begun):.0f} studies a second of the processor")
        loaders[name], bytes_of[name] = loader(f"shards:{folder / dtype}", size), summary.bytes
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, batches in loaders.items():
            figures[name].append(rates(batches))
    median = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in figures.items()}
    base = median["DICOM files"]
    print(f"\n{count} radiographs of {side} x {side}, read at {size} x {size}, median of {rounds} epochs\n")
    print(
        "| read from | studies a second | times DICOM | studies a second of the processor | times DICOM | KB a study |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, (clock, processor) in median.items():
        cells = f"{clock:.0f} | {clock / base[0]:.1f} | {processor:.0f} | {processor / base[1]:.1f}"
        print(f"| {name} | {cells} | {bytes_of[name] / count / 1e3:.0f} |")
    return median["shards, uint8"][1] / base[1]


def write_many(folder: Path, count: int, size: int, written: int | None = None) -> None:
    """A packed folder of many studies in shards of 1000, of which the first ``written`` have a tar file; all by default."""
    folder.mkdir()
    shards = -(-count // 1000)
    written = shards if written is None else written
    _, content = encode_image(torch.rand(1, size, size))
    listed = []
    with (folder / STUDIES).open("wb") as table:
        for number in range(shards):
            numbers = range(1000 * number, min(1000 * (number + 1), count))
            columns = ShardColumns(shard_name(number), ["Edema", "Fracture"])
            if number < written:
                with (folder / shard_name(number)).open("wb") as file:
                    for i in numbers:
                        columns.write(file, Sample(i, study_of(i), ("png", content), (f"{i}.dcm", 1000 + i)))
                    columns.close(file)
            else:
                add_rows(columns.columns, numbers, len(content))
            table.write(columns.line())
            own = len(numbers)
            listed.append(
                {"name": shard_name(number), "bytes": columns.size, "sha256": "", "studies": own, "images": own}
            )
    counts = {"rows": count, "skipped": 0, "image": count, "report": count, "label": count}
    index: dict[str, Any] = {
        "format": FORMAT,
        "name": "many",
        "settings": PackSettings(size).to_dict(),
        "counts": counts,
    }
    index |= {"names": ["Edema", "Fracture"], "unmatched": {}, "encoding": "utf-8", "skipped": [], "files": []}
    (folder / INDEX).write_text(json.dumps({**index, "shards": listed}))


def study_of(i: int) -> dict[str, Any]:
    """A study."""
    label = np.array([i % 2, np.nan], dtype=np.float32)
    split = "val" if i % 50 == 0 else "train"
    row = {"study_id": f"s{i}", "row": i + 1, "patient_id": f"p{i // 2}", "label": label, "split": split}
    return {**row, "report": REPORT.format(i)}


def add_rows(columns: dict[str, Any], numbers: range, size: int) -> None:
    """The columns of studies as :func:`study_of`, with images that are in no file."""
    columns["study_id"] = [f"s{i}" for i in numbers]
    columns["patient_id"] = [f"p{i // 2}" for i in numbers]
    columns["split"] = ["val" if i % 50 == 0 else "train" for i in numbers]
    columns["report"] = [REPORT.format(i) for i in numbers]
    columns["label"] = [f"{i % 2}." for i in numbers]
    columns["number"], columns["row"] = list(numbers), [i + 1 for i in numbers]
    columns["offset"], columns["size"] = [512 + 4096 * (i % 1000) for i in numbers], [size] * len(numbers)
    columns["digest"] = [f"{i:016x}" for i in numbers]
    columns["source_name"], columns["source_size"] = [f"{i}.dcm" for i in numbers], [1000 + i for i in numbers]


def resident() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure_memory(folder: Path, count: int) -> float:
    """Print the memory while ``count`` studies are read once; the growth after the first tenth, in MB."""
    write_many(folder / "many", count, 32)
    begun, seen, marks = time.perf_counter(), 0, []
    for batch in loader(f"shards:{folder / 'many'}", 32, 64):
        seen += len(batch["study_id"])
        if seen >= (len(marks) + 1) * count // 10:
            marks.append(resident())
    rounded = ", ".join(f"{mark:.0f}" for mark in marks)
    print(f"{seen} studies in {time.perf_counter() - begun:.0f} s; memory after each tenth, in MB: {rounded}")
    return max(marks) - marks[0]


def measure_start(folder: Path, rows: int) -> None:
    """Print seconds and memory from the start of reading the index to the first batch, in a process of its own."""
    write_many(folder / "rows", rows, 8, written=0)
    code = f"""
import resource, time
from medvl.data import StudyDataset, StudyLoader, load_studies
from medvl.transforms import image_preprocessing
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
libraries, start, used = memory(), time.perf_counter(), time.process_time()
manifest = load_studies("shards:{folder / "rows"}", ".")
read = time.process_time() - used
loader = StudyLoader(StudyDataset(manifest.subset("train").studies, []), 64, shuffle=True)
batch = next(iter(loader))
seconds, used = time.perf_counter() - start, time.process_time() - used
print(f"{{len(manifest)}} rows: first batch after {{seconds:.1f}} s, {{used:.1f}} s of the processor ({{read:.1f}} s to read)")
print(f"memory {{memory():.0f}} MB, {{libraries:.0f}} MB of them the libraries")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="DICOM files")
    parser.add_argument("--side", type=int, default=1024, help="of the DICOM images, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=0, metavar="STUDIES")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.count, asked.side, asked.rounds, asked.memory, asked.rows = 12, 512, 2, 2000, 5000
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        if asked.quick or not (asked.memory or asked.rows):
            ratio = compare_with_dicom(Path(work), asked.count, asked.side, SIZE, asked.rounds)
            print(f"\nshards of uint8 give {ratio:.1f} times as many studies a second of the processor as DICOM files")
        if asked.memory:
            print(f"memory grows by {measure_memory(Path(work), asked.memory):.0f} MB after the first tenth")
        if asked.rows:
            measure_start(Path(work), asked.rows)


if __name__ == "__main__":
    main()
