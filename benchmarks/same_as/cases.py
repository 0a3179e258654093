"""The trainings that two commits are compared by.

The commits may differ in their Python API, so a case relies only on what both of them
have: flags of `python -m fpn_jax.main`, and the files that it writes.
"""

import dataclasses
from collections.abc import Mapping

BATCHES = ("batches", "metrics")
"""What is compared of a training whose input matters."""
NUMBERS = ("metrics", "checkpoint")
"""What is compared of a training whose model matters."""
USED = (*NUMBERS, "predictions", "evaluation")
"""What is compared of a trained model that is also used."""
EXPORTED = (*USED, "export")
"""What is compared of a trained model that is also exported."""

TRAINING_BATCHES = 50
"""Number of training batches that are compared, followed by one validation pass."""

# LeNet-5 compiles in a second: these cases are about the input of the model.
SMALL = (
    "--config.backbone.name=lenet5",
    "--config.neck.name=identity",
    "--config.optimizer.warmup_steps=2",
    f"--config.train.total_steps={TRAINING_BATCHES}",
    # One validation pass after the last step, and the one of the report.
    "--config.train.evaluate_every_steps=1000",
)
AUGMENTED = (
    "--config.augment.crop_scale=(0.3,1.0)",
    "--config.augment.crop_ratio=(0.75,1.3333)",
    "--config.augment.flip=0.5",
    "--config.augment.brightness=0.3",
    "--config.augment.contrast=0.3",
    "--config.augment.saturation=0.3",
    "--config.augment.hue=0.1",
    "--config.augment.randaugment_layers=2",
    "--config.augment.erasing=0.5",
    "--config.mix.mixup_alpha=0.2",
    "--config.mix.cutmix_alpha=1.0",
    "--config.mix.probability=1.0",
)
DRAWN = ("--config=configs/fpn.py", *SMALL)
# 256 records: the 50 batches begin seven epochs.
DRAWN_AUGMENTED = (
    "--config=configs/fpn.py:smoke",
    *SMALL,
    "--config.data.image_size=64",
    *AUGMENTED,
)
# 50 × 48 of 2,000 photographs: the batches begin a second epoch.
FOLDER = (
    "--config=configs/fpn.py:folder",
    "--config.data.root={root}",
    *SMALL,
    "--config.data.image_size=64",
    "--config.data.global_batch_size=48",
)
SMOKE = ("--config=configs/fpn.py:smoke",)
SPP_ASPP = (
    *SMOKE,
    "--config.data.image_size=64",
    "--config.head.name=spp",
    "--config.neck.name=aspp",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One training, and what is compared of it.

    Attributes:
      arguments: Flags of `python -m fpn_jax.main`; `{root}` and `{weights}` are
        replaced by the paths that the user gives.
      measures: Names of what is compared; keys of the result of `measure.measure`.
      devices: Number of devices that are simulated; 1 simulates none.
    """

    arguments: tuple[str, ...]
    measures: tuple[str, ...]
    devices: int = 1

    def missing(self, given: Mapping[str, str]) -> list[str]:
        """Returns the names of the paths that the case needs and that are not given."""
        text = " ".join(self.arguments)
        names = [name for name in ("root", "weights") if f"{{{name}}}" in text]
        return [name for name in names if name not in given]

    def flags(self, given: Mapping[str, str]) -> tuple[str, ...]:
        """Returns the flags with the given paths in them."""
        return tuple(argument.format_map(given) for argument in self.arguments)


CASES = {
    "batches_drawn": Case(DRAWN, BATCHES),
    "batches_drawn_8_devices": Case(DRAWN, BATCHES, devices=8),
    "batches_drawn_augmented": Case(DRAWN_AUGMENTED, BATCHES),
    "batches_drawn_augmented_2_workers": Case(
        (*DRAWN_AUGMENTED, "--config.data.num_workers=2"), BATCHES
    ),
    "batches_folder_quick": Case(
        (*FOLDER, "--config.data.quick_decoding=True"), BATCHES
    ),
    "batches_folder_exact": Case(
        (*FOLDER, "--config.data.quick_decoding=False"), BATCHES
    ),
    "batches_folder_augmented": Case((*FOLDER, *AUGMENTED), BATCHES),
    "smoke": Case(SMOKE, EXPORTED),
    "smoke_8_devices": Case(SMOKE, EXPORTED, devices=8),
    # No export: commits up to 7197151 fail to export the head spp.
    "spp_aspp": Case(SPP_ASPP, USED),
    "spp_aspp_8_devices": Case(SPP_ASPP, USED, devices=8),
    "folder": Case(
        (
            "--config=configs/fpn.py:folder",
            "--config.data.root={root}",
            "--config.backbone.width=16",
            "--config.neck.width=16",
            "--config.optimizer.warmup_steps=20",
            "--config.train.total_steps=60",
        ),
        NUMBERS,
    ),
    # The config trains its backbone from step 126 on, and refuses to end before.
    "finetune": Case(
        (
            "--config=configs/finetune.py",
            "--config.data.root={root}",
            "--config.data.image_size=64",
            "--config.pretrained.path={weights}",
            "--config.pretrained.recipe=tensorflow",
            "--config.train.evaluate_every_steps=65",
            "--config.train.total_steps=130",
        ),
        NUMBERS,
    ),
}
"""Name → case."""
