"""Fine-tunes an ImageNet backbone on a folder of photographs.

    python -m fpn_jax.main --config=configs/finetune.py \
        --config.data.root=DIR --config.pretrained.path=FILE \
        --config.pretrained.recipe=RECIPE --workdir=runs/finetuned

`DIR` contains the folders Train/Validate/Test × Cat/Dog. `FILE` is a .safetensors, .npz
or .pth file with torchvision's or timm's mobilenet_v2, and `RECIPE` is torchvision,
timm, or tensorflow for weights that TensorFlow trained. For another backbone, also set
`--config.backbone.name`, and set `--config.finetune.freeze` to names of its blocks,
which `--mode=summary` shows.

`--config=configs/finetune.py:VARIANT` uses the neck and head of another config file:
identity, image_pyramid, fpn_flatten, fpn_ppm, aspp, ppm, spp, covariance.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import (
    aspp,
    covariance,
    fpn,
    fpn_flatten,
    fpn_ppm,
    identity,
    image_pyramid,
    ppm,
    spp,
)

NECKS_AND_HEADS = {
    "fpn": fpn,
    "identity": identity,
    "image_pyramid": image_pyramid,
    "fpn_flatten": fpn_flatten,
    "fpn_ppm": fpn_ppm,
    "aspp": aspp,
    "ppm": ppm,
    "spp": spp,
    "covariance": covariance,
}
"""Variant → the config file whose neck and head are used."""


def get_config(variant: str = "fpn") -> ConfigDict:
    """Returns the config with the neck and head of another config file.

    Args:
      variant: A key of `NECKS_AND_HEADS`.

    Raises:
      ValueError: The variant is unknown.
    """
    if variant not in NECKS_AND_HEADS:
        choices = ", ".join(NECKS_AND_HEADS)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = fpn.get_config("folder")
    other = NECKS_AND_HEADS[variant].get_config("folder")
    config.neck, config.head = other.neck, other.head
    # Small photographs are enlarged: 256 px were better than the 224 px of the weights.
    config.data.image_size = 256
    config.data.crop_fraction = 1.0
    config.augment.crop_scale = (0.5, 1.0)
    config.mix.mixup_alpha = 0.0
    config.mix.cutmix_alpha = 0.0
    config.backbone = ConfigDict({"name": "mobilenet_v2"})
    # The backbone is pretrained on photographs. Its first blocks stay frozen. Its other
    # blocks train slowly, after 126 steps in which only the neck and head train.
    config.finetune.freeze = (
        "backbone/stem",
        "backbone/stage1",
        "backbone/stage2",
        "backbone/stage3",
        "backbone=126",
    )
    config.finetune.learning_rate_multipliers = ("backbone=0.1",)
    config.finetune.frozen_norm_steps = -1
    config.optimizer.name = "adamw"
    config.optimizer.nesterov = False
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.optimizer.warmup_steps = 20
    # A number of steps, not of epochs, so that 200 photographs train long enough, too:
    # 800 steps are 128 epochs of 200 photographs, and 11 of 2,400.
    config.train.total_steps = 800
    config.train.epochs = placeholder(float)
    config.train.evaluate_every_steps = 100
    config.train.ema_decay = 0.99
    return config
