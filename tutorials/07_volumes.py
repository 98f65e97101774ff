"""Chest CT with reports: a recipe on volumes, from NIfTI files to zero-shot scores of one scan.

Runs in about two minutes on two CPU cores and writes the folder volumes/. Swap the synthetic table for your own: images are
NIfTI files or folders with a DICOM series. `medvl train convirt --data cases.csv --set spatial_dims=3` does the first half.
"""

from medvl.data import SyntheticChestCT
from medvl.evaluation import retrieval, zero_shot
from medvl.inferers import RetrievalInferer, ZeroShotInferer
from medvl.transforms import image_preprocessing
from medvl.workflows import TrainedRun, embed, train

table = SyntheticChestCT(length=600, size=32).save("volumes/data")

# Every recipe learns from volumes by one setting; all other settings are those of radiographs.
folder = train(
    "convirt",
    {
        "data": str(table),
        "output": "volumes/run",
        "spatial_dims": 3,
        "image_size": 32,
        "epochs": 12,
        "batch_size": 16,
        "learning_rate": 0.001,
        "flip_prob": 0.0,  # these reports tell left from right
        "augmentation#rotation": 5.0,  # about each axis
        "augmentation#crop": [0.8, 1.0],
        "augmentation#blur_prob": 0.0,
        "vocab_size": 1000,
        "resume": True,
    },
)

# Patients the model has not seen: does an image find its report, and a prompt its images?
run = TrainedRun(folder)
test = run.studies(split="test")
embeddings = embed(run.model, run.loader(test))
class_prompts = run.class_prompts(SyntheticChestCT.drawable)
print(retrieval(embeddings).table(), zero_shot(embeddings, class_prompts, run.model, test.names).table(), sep="\n\n")

# One scan: its probable findings, and which of the training reports is nearest to it.
study = test.studies[0]
scan = image_preprocessing(image_size=32, spatial_dims=3)(study)["image"][None]
probabilities = ZeroShotInferer(class_prompts)(scan, run.model)[0]
reports = [training["report"] for training in run.studies(split="train").studies]
scores, nearest = RetrievalInferer(reports).search(scan, run.model, k=1)
print("\nIts report:\n" + study["report"])
print("\nThe nearest of the training reports:\n" + nearest[0][0])
named = zip(class_prompts, probabilities.tolist(), strict=True)
print("\n" + ", ".join(f"{name} {value:.2f}" for name, value in named))
