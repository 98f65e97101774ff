"""The script of monai_trainer_before.py after a few lines changed: the same ResNet learns from reports, without labels.

It is validated on the same findings, now by prompts: zero-shot.
"""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandRotated, ScaleIntensityd
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, read_manifest
from medvl.engines import PrepareBatchImageText
from medvl.inferers import ZeroShotInferer
from medvl.losses import CombinedLoss, ImageTextContrastiveLoss
from medvl.networks import convirt
from medvl.text import make_class_prompts
from medvl.transforms import TokenizeTextd, train_tokenizer

set_determinism(0)

# Your datalist: dictionaries with an image, a report and labels. Here, generated ones.
manifest = read_manifest(SyntheticChestXRay(length=300, size=64).save("monai-trainer/data"))
findings = ["Cardiomegaly", "Lung Opacity", "Pleural Effusion", "Support Devices"]
columns = [manifest.names.index(name) for name in findings]
studies = [{**study, "label": study["label"][columns]} for study in manifest.studies]
train_studies, val_studies = studies[:200], studies[200:]
tokenizer = train_tokenizer(study["report"] for study in train_studies)

transform = Compose(
    [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        ScaleIntensityd("image"),
        RandRotated("image", range_x=0.1, prob=0.5),
        TokenizeTextd("report", tokenizer, max_length=96, padding=True),
    ]
)
loader = DataLoader(Dataset(train_studies, transform), batch_size=25, shuffle=True)
val_loader = DataLoader(Dataset(val_studies, transform), batch_size=25)

network = convirt("small", image_encoder="resnet10", image_size=64, tokenizer=tokenizer)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
loss_function = CombinedLoss({"contrastive": ImageTextContrastiveLoss()})

evaluator = SupervisedEvaluator(
    device="cpu",
    val_data_loader=val_loader,
    network=network,
    inferer=ZeroShotInferer(make_class_prompts(findings)),
    key_val_metric={"auroc": ROCAUC(output_transform=from_engine(["pred", "label"]))},
)
trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=4,
    train_data_loader=loader,
    network=network,
    optimizer=optimizer,
    loss_function=loss_function,
    prepare_batch=PrepareBatchImageText(),
    decollate=False,
    train_handlers=[
        LrScheduleHandler(torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 4), print_lr=False),
        ValidationHandler(interval=1, validator=evaluator),
    ],
)
trainer.run()
print(f"AUROC over {', '.join(findings)}: {evaluator.state.best_metric:.3f} at best")
