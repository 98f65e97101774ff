# %% [markdown]
# # One loss in three trainers
#
# The losses take tensors and know no trainer. Here the same network, loss and batches run in MONAI's
# `SupervisedTrainer`, in a Lightning module, and in Hugging Face's `Trainer`. Lightning is not among the packages that
# medvl needs: where it is not installed, a loop of ten lines calls the module as Lightning does. `Trainer` needs
# `accelerate`; without it that part is left out, and says so. It runs in about a minute on one CPU core.

# %%
import copy
import importlib.util

import torch
from ignite.engine import Events
from matplotlib import pyplot as plt
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, SelectItemsd
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay
from medvl.engines import PrepareBatchImageText
from medvl.evaluation import embed_studies, retrieval
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import convirt
from medvl.transforms import TokenizeTextd, image_preprocessing, train_tokenizer

EPOCHS, BATCH = 3, 16
set_determinism(0)
data = SyntheticChestXRay(length=600, size=64)
studies = [data[index] for index in range(len(data))]
split = {name: [study for study in studies if study["split"] == name] for name in ("train", "test")}
tokenizer = train_tokenizer([study["report"] for study in split["train"]], vocab_size=1000)
prepare = Compose(
    [
        image_preprocessing(64),
        TokenizeTextd("report", tokenizer, max_length=96, padding=True),
        SelectItemsd(["image", "input_ids", "attention_mask", "study_id"]),
    ]
)
train_set = Dataset([prepare({**study, "study_id": number}) for number, study in enumerate(split["train"])])
start = convirt("small", image_encoder="resnet10", image_size=64, embed_dim=64, tokenizer=tokenizer)
losses, models = {}, {}


def batches() -> DataLoader:
    """The same batches for every trainer: in the order of the data, where one shuffles otherwise."""
    return DataLoader(train_set, batch_size=BATCH, drop_last=True, generator=torch.Generator().manual_seed(0))


# %% [markdown]
# ## MONAI
#
# `CombinedLoss` finds the arguments of the loss by name, in what the network returns and in the batch.

# %%
set_determinism(0)
models["MONAI"] = copy.deepcopy(start)
losses["MONAI"] = []
trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=EPOCHS,
    train_data_loader=batches(),
    network=models["MONAI"],
    optimizer=torch.optim.Adam(models["MONAI"].parameters(), lr=1e-3),
    loss_function=CombinedLoss({"contrastive": ImageTextContrastiveLoss()}),
    prepare_batch=PrepareBatchImageText(),
    decollate=False,  # images and texts may differ in number
)


@trainer.on(Events.ITERATION_COMPLETED)
def keep(engine):
    losses["MONAI"].append(engine.state.output["loss"].item())


trainer.run()

# %% [markdown]
# ## Lightning
#
# `training_step` returns the loss. Studies with the same id are positives of each other, so the ids go in as well.

# %%
has_lightning = importlib.util.find_spec("lightning") is not None
if has_lightning:
    import lightning

    Module = lightning.LightningModule
else:
    print("lightning is not installed: a loop of ten lines calls the module as Lightning does.")
    Module = torch.nn.Module


class Contrastive(Module):
    """A LightningModule, and a plain module where Lightning is not installed."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.loss, self.history = network, ImageTextContrastiveLoss(), []

    def training_step(self, batch, batch_idx):
        output = self.network(batch["image"], batch["input_ids"], batch["attention_mask"])
        loss = self.loss(
            output["image_embeds"],
            output["text_embeds"],
            image_ids=batch["study_id"],
            text_ids=batch["study_id"],
            logit_scale=output["logit_scale"],
        )
        self.history.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.network.parameters(), lr=1e-3)


set_determinism(0)
models["Lightning"] = copy.deepcopy(start)
module = Contrastive(models["Lightning"])
if has_lightning:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet).fit(module, batches())
else:
    loader, optimizer = batches(), module.configure_optimizers()
    module.train()
    for _ in range(EPOCHS):
        for index, batch in enumerate(loader):
            optimizer.zero_grad()
            module.training_step(batch, index).backward()
            optimizer.step()
losses["Lightning"] = module.history

# %% [markdown]
# ## Hugging Face
#
# `Trainer` takes what the model returns as `loss`, and calls it with the columns of the batch by name. It makes its
# own loader, which shuffles, unless it is given one, as here.

# %%
if importlib.util.find_spec("accelerate") is None:
    print('accelerate is not installed: the part on Trainer is left out. pip install "transformers[torch]"')
else:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    class WithLoss(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.loss = network, ImageTextContrastiveLoss()

        def forward(self, image, input_ids, attention_mask, study_id):
            output = self.network(image, input_ids, attention_mask)
            embeds = output["image_embeds"], output["text_embeds"]
            ids = {"image_ids": study_id, "text_ids": study_id}
            return {"loss": self.loss(*embeds, **ids, logit_scale=output["logit_scale"])}

    class SameBatches(Trainer):
        def get_train_dataloader(self):
            return batches()

    set_determinism(0)
    models["Hugging Face"] = copy.deepcopy(start)
    arguments = TrainingArguments(
        output_dir="existing-trainers",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        optim="adamw_torch",
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=0,
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    hugging_face = SameBatches(WithLoss(models["Hugging Face"]), arguments, train_dataset=train_set)
    hugging_face.remove_callback(PrinterCallback)
    hugging_face.train()
    losses["Hugging Face"] = [line["loss"] for line in hugging_face.state.log_history if "loss" in line]

# %% [markdown]
# ## The same training
#
# The three curves lie on each other, and each model finds the reports of new images as well as the others do: a
# trainer is a matter of taste. Chance for the recall is 10 of as many reports as there are.

# %%
test = [image_preprocessing(64)(dict(study)) for study in split["test"]]
batch = {"image": torch.stack([study["image"] for study in test]), "report": [study["report"] for study in test]}
results = {name: retrieval(embed_studies(model, [batch])).image_to_text for name, model in models.items()}
found = {name: result.values["recall_at_10"] for name, result in results.items()}
for name, recall in found.items():
    print(f"{name}: loss {losses[name][0]:.3f} to {sum(losses[name][-20:]) / 20:.3f}, R@10 {recall}")
    difference = max(abs(a - b) for a, b in zip(losses[name], losses["MONAI"], strict=True))
    print(f"  largest difference of a loss from MONAI's: {difference:.4f}")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=90, layout="constrained", width_ratios=[2, 1])
styles = {"MONAI": ("#0072B2", "-", 4), "Lightning": ("#E69F00", "--", 2.5), "Hugging Face": ("black", ":", 1.5)}
for row, (name, recall) in enumerate(found.items()):
    color, style, width = styles[name]
    left.plot(losses[name], color=color, linestyle=style, linewidth=width, label=name)
    right.plot([recall.low, recall.high], [row, row], color=color, linewidth=2)
    right.plot(recall.value, row, "o", color=color)
left.set(xlabel="step", ylabel="loss")
left.legend()
right.axvline(results["MONAI"].chance["recall_at_10"], color="#D55E00", linestyle="--", label="chance")
right.set(yticks=range(len(found)), yticklabels=found, xlabel="R@10 of the report, 95 % interval", xlim=(0, None))
right.set_ylim(len(found) - 0.5, -0.5)
right.legend(fontsize=8)
figure.savefig("existing-trainers.png")
