"""A MONAI training script as many have it: a ResNet learns findings from chest X-rays with labels.

monai_trainer_after.py is the same script after it was taught to learn from the reports instead.
"""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, LrScheduleHandler, ValidationHandler, from_engine
from monai.networks.nets import resnet10
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandRotated, ScaleIntensityd
from monai.utils import set_determinism

from medvl.data import SyntheticChestXRay, read_manifest

set_determinism(0)

# Your datalist: dictionaries with an image, a report and labels. Here, generated ones.
manifest = read_manifest(SyntheticChestXRay(length=300, size=64).save("monai-trainer/data"))
findings = ["Cardiomegaly", "Lung Opacity", "Pleural Effusion", "Support Devices"]
columns = [manifest.names.index(name) for name in findings]
studies = [{**study, "label": study["label"][columns]} for study in manifest.studies]
train_studies, val_studies = studies[:200], studies[200:]

transform = Compose(
    [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        ScaleIntensityd("image"),
        RandRotated("image", range_x=0.1, prob=0.5),
    ]
)
loader = DataLoader(Dataset(train_studies, transform), batch_size=25, shuffle=True)
val_loader = DataLoader(Dataset(val_studies, transform), batch_size=25)

network = resnet10(spatial_dims=2, n_input_channels=1, num_classes=len(findings), widen_factor=0.5)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
loss_function = torch.nn.BCEWithLogitsLoss()

evaluator = SupervisedEvaluator(
    device="cpu",
    val_data_loader=val_loader,
    network=network,
    key_val_metric={"auroc": ROCAUC(output_transform=from_engine(["pred", "label"]))},
)
trainer = SupervisedTrainer(
    device="cpu",
    max_epochs=4,
    train_data_loader=loader,
    network=network,
    optimizer=optimizer,
    loss_function=loss_function,
    train_handlers=[
        LrScheduleHandler(torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 4), print_lr=False),
        ValidationHandler(interval=1, validator=evaluator),
    ],
)
trainer.run()
print(f"AUROC over {', '.join(findings)}: {evaluator.state.best_metric:.3f} at best")
