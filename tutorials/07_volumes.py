# %% [markdown]
# # Volumes: chest CT with reports
#
# A recipe on volumes, from NIfTI files to zero-shot scores of one scan. It runs in about two minutes on two CPU cores
# and writes the folder `volumes/`. Put your own table in: images are NIfTI files or folders with a DICOM series.
# `medvl train medclip --data cases.csv --set spatial_dims=3` does the first half.

# %%
from matplotlib import pyplot as plt

from medvl.data import SyntheticChestCT
from medvl.evaluation import zero_shot
from medvl.inferers import ZeroShotInferer
from medvl.transforms import image_preprocessing
from medvl.workflows import TrainedRun, embed, train

table = SyntheticChestCT(length=500, size=32).save("volumes/data")
print(table.read_text()[:330])

# %% [markdown]
# ## Training
#
# Every recipe learns from volumes by one setting, `spatial_dims`; all others are those of radiographs. Semantic
# matching compares every volume of a step with every sentence of it, and learns from few studies. A contrast of pairs
# needs more: in a training as short as this, the recipe `convirt` stays near chance ([encoders](../docs/encoders.md)
# has it with thousands of volumes).

# %%
folder = train(
    "medclip",
    {
        "data": str(table),
        "output": "volumes/run",
        "spatial_dims": 3,
        "image_size": 32,
        "epochs": 8,
        "batch_size": 16,
        "num_texts": 64,
        "learning_rate": 0.001,
        "flip_prob": 0.0,  # these reports tell left from right
        "augmentation#rotation": 5.0,  # about each axis
        "augmentation#crop": [0.9, 1.0],
        "augmentation#blur_prob": 0.0,
        "vocab_size": 1000,
        "device": "cpu",
        "progress": False,
        "resume": True,
    },
)

# %% [markdown]
# ## Evaluation
#
# On patients that the model has not seen, by sentences alone.

# %%
run = TrainedRun(folder, "cpu")
test = run.studies(split="test")
embeddings = embed(run.model, run.loader(test))
class_prompts = run.class_prompts(SyntheticChestCT.drawable)
result = zero_shot(embeddings, class_prompts, run.model, test.names)
print(result.table())

# %% [markdown]
# ## One scan
#
# Its probable findings. A preprocessed volume is (1, right, front, head), whatever the order in the file.

# %%
study = test.studies[0]
scan = image_preprocessing(image_size=32, spatial_dims=3)(study)["image"][None]
probabilities = ZeroShotInferer(class_prompts)(scan, run.model)[0]
print(tuple(scan.shape), study["report"], sep="\n")
print(", ".join(f"{name} {value:.2f}" for name, value in zip(class_prompts, probabilities.tolist(), strict=True)))

# %% [markdown]
# The scan in three planes, with the patient's left at the left, and the AUROC of each finding with its 95 % interval
# over the test patients. No interval crosses the line of chance, though a voxel is about a centimeter wide; effusions
# and atelectasis are told best.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3.1), dpi=80, layout="constrained", width_ratios=[1, 1, 1, 1.6])
volume, middle = scan[0, 0].numpy(), scan.shape[-1] // 2
planes = {"axial": volume[:, :, middle], "coronal": volume[:, middle], "sagittal": volume[middle]}
for axis, (name, plane) in zip(axes, planes.items(), strict=False):
    axis.imshow(plane.T, cmap="gray", origin="lower", vmin=0, vmax=1)
    axis.set(title=name, xticks=[], yticks=[])
found = {name: finding.auroc for name, finding in result.findings.items()} | {"mean": result.macro["auroc"]}
for row, (name, auroc) in enumerate(found.items()):
    axes[3].plot([auroc.low, auroc.high], [row, row], color="#0072B2", linewidth=3 if name == "mean" else 1.5)
    axes[3].plot(auroc.value, row, "o", color="#0072B2")
axes[3].axvline(0.5, color="#D55E00", linestyle="--", label="chance")
axes[3].set(yticks=range(len(found)), yticklabels=found, xlim=(0, 1.02), xlabel="zero-shot AUROC")
axes[3].invert_yaxis()
axes[3].legend(fontsize=8, loc="lower left")
figure.savefig("volumes/results.png")
assert result.macro["auroc"].low > 0.5
