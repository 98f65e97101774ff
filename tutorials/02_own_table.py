# %% [markdown]
# # Your own table, with DICOM files
#
# From a folder as hospitals have it to an evaluated model: PNG and DICOM files side by side, one of them dark on
# bright (MONOCHROME1), columns of other names, several images of a patient, no splits, a file that is missing. It runs
# in about a minute on two CPU cores and writes the folder `own-table/`. Put your own table in place of the one that is
# made first.

# %%
import csv
from pathlib import Path

import numpy as np
import pydicom
from matplotlib import pyplot as plt
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from medvl.data import SyntheticChestXRay, read_manifest
from medvl.transforms import image_preprocessing
from medvl.workflows import TrainedRun, evaluate_run, read_skipped, train

folder = Path("own-table")
(folder / "images").mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The table
#
# This cell stands for your hospital's export. Every third image is a DICOM file of 12 bits. Half of these are stored
# dark on bright, as some detectors do, and none carries more than a viewer needs.


# %%
def save_dicom(pixels: np.ndarray, path: Path, photometric: str) -> None:
    """Write an image with values from 0 to 1 as a DICOM file of 12 bits."""
    stored = (pixels * 4095).round().astype(np.uint16)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.Modality, file.PhotometricInterpretation, file.SamplesPerPixel = "DX", photometric, 1
    file.Rows, file.Columns = stored.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = (4095 - stored if photometric == "MONOCHROME1" else stored).tobytes()
    file.save_as(path, enforce_file_format=True)


rows = []
for number, study in enumerate(SyntheticChestXRay(length=400, size=64)):
    pixels = study["image"][0].numpy()
    name = f"images/{number:04}.{'png' if number % 3 else 'dcm'}"
    if number % 3:
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(folder / name)
    else:
        save_dicom(pixels, folder / name, "MONOCHROME1" if number % 2 else "MONOCHROME2")
    rows.append({"file": name, "text": study["report"], "patient": study["patient_id"]})
rows[7]["file"] = "images/lost.png"  # what the export forgot
with (folder / "cases.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
print((folder / "cases.csv").read_text()[:300])

# %% [markdown]
# ## Read it
#
# Columns are named as they are. A row that is broken is an error that says which; with `on_error="skip"` it is left
# out and counted. Splits are made by patient, so that no patient is in two.

# %%
columns = {"image_column": "file", "report_column": "text", "patient_column": "patient"}
manifest = read_manifest(folder / "cases.csv", **columns, on_error="skip").assign_splits(seed=0)
print(manifest.summary())
for skipped in manifest.skipped:
    print("skipped:", skipped)
patients = {name: {study["patient_id"] for study in manifest.subset(name).studies} for name in ("train", "val", "test")}
print({name: f"{len(manifest.subset(name))} studies of {len(ids)} patients" for name, ids in patients.items()})
assert not patients["train"] & patients["test"]

# %% [markdown]
# ## Train and evaluate
#
# The same as `medvl train --data own-table/cases.csv --report-column text ...` and `medvl evaluate`. The table has no
# labels: the library reads the findings from the reports, and says so. Three epochs on 283 studies are far too few for
# a good model: it tells some findings, and the retrieval of reports is still at chance. They are enough to see that
# everything fits together.

# %%
settings = {"image_size": 64, "epochs": 3, "batch_size": 32, "learning_rate": 0.001, "vocab_size": 1000}
settings |= {"flip_prob": 0.0, "progress": False, "device": "cpu", "resume": True}
options = {"data": str(folder / "cases.csv"), "columns": columns, "on_error": "skip", "output": str(folder / "run")}
run = TrainedRun(train("medvl", {**options, **settings}))
test = run.studies(split="test", on_error="skip", label_reports=True)
results = evaluate_run(
    run, test, run.loader(test, on_error="skip"), run.path, protocols=["zero-shot", "retrieval"], untrained=False
)
print(results.table())
print("left out of the training:", read_skipped(run.path))

# %% [markdown]
# ## What the model was fed
#
# The picture to look at before any training: each file as it is stored, and below it what the model sees. A radiograph
# that is dark on bright in the file must be bright on dark below, like the others.

# %%
shown = [0, 3, 1, 2]
titles = ["DICOM, MONOCHROME2", "DICOM, MONOCHROME1", "PNG", "PNG"]
prepare = image_preprocessing(image_size=64)
figure, axes = plt.subplots(2, len(shown), figsize=(9, 4.8), dpi=90, layout="constrained")
for column, (number, title) in enumerate(zip(shown, titles, strict=True)):
    path = folder / rows[number]["file"]
    stored = pydicom.dcmread(path).pixel_array if path.suffix == ".dcm" else np.asarray(Image.open(path))
    fed = prepare({"image": str(path)})["image"][0]
    for row, pixels in enumerate((stored, fed)):
        axes[row, column].imshow(pixels, cmap="gray")
        axes[row, column].set(xticks=[], yticks=[])
    axes[0, column].set_title(f"{title}\n{stored.min()} to {stored.max()}", fontsize=10)
    axes[1, column].set_title(f"{fed.min():.2f} to {fed.max():.2f}", fontsize=10)
    assert np.corrcoef(SyntheticChestXRay(length=400, size=64)[number]["image"].flatten(), fed.flatten())[0, 1] > 0.95
axes[0, 0].set_ylabel("in the file")
axes[1, 0].set_ylabel("fed to the model")
figure.savefig(folder / "fed.png")
