"""Segments cats and dogs: the class of every pixel, from a feature pyramid.

    python -m fpn_jax.main --config=configs/segmentation.py --workdir=runs/segmented

`--config=configs/segmentation.py:VARIANT` chooses the data:

  smoke    a test run of a few seconds, too short for a good model
  pets     the Oxford-IIIT Pet data set, with a pretrained backbone: add
           --config.data.root=DIR --config.pretrained.path=FILE
           --config.pretrained.recipe=RECIPE
  scratch  the same without pretrained weights: add --config.data.root=DIR
  masks    your own photographs and masks: add the arguments of pets, and
           --config.data.source.mask_classes="{'background': 0, 'pet': 1}"

`:VARIANT+NETWORK` also chooses the neck and the head, as in `:pets+unet`:

  fpn       feature pyramid network and the head of Panoptic FPN, the default
  psp       PSPNet, with its auxiliary loss
  deeplab   DeepLab v3+
  unet      U-Net, with nearest upsampling
  identity  no neck: the finest map alone, to see what the others are worth
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import fpn

NETWORKS = ("fpn", "psp", "deeplab", "unet", "identity")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `DATA`, `DATA+NETWORK` or `+NETWORK`; see above.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {
        "": lambda config: None,
        "smoke": smoke,
        "pets": pets,
        "scratch": scratch,
        "masks": masks,
    }
    data, _, network = variant.partition("+")
    if data not in variants or (network or "fpn") not in NETWORKS:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(
            f"variant {variant!r} is unknown; choose one of {choices}, and add "
            f"+NETWORK for one of {', '.join(NETWORKS)}"
        )
    config = drawn()
    variants[data](config)
    set_network(config, network or "fpn", width=32 if data == "smoke" else 64)
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn images of 96 px."""
    config = fpn.get_config()
    config.data.image_size = 96
    config.data.source.train_records = 38400
    config.data.source.validate_records = 500
    config.data.source.test_records = 500
    config.backbone = ConfigDict(
        {"name": "resnet18", "width": 24, "levels": (1, 2, 3, 4, 5)}
    )
    config.task = ConfigDict(
        {
            "name": "segmentation",
            # Name of a loss → its weight: cross_entropy, dice, lovasz, focal.
            "loss_weights": {"cross_entropy": 1.0, "dice": 1.0},
            # Weight of the loss of a second, finer map; psp sets it.
            "auxiliary_weight": 0.0,
            "align_corners": False,
        }
    )
    config.train.evaluate_every_steps = 200
    return config


def smoke(config: ConfigDict) -> None:
    """Makes everything small, so that a run takes seconds.

    Args:
      config: The default config, changed in place.
    """
    fpn.smoke(config)
    config.data.image_size = 64


def pets(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on a few hundred photographs of pets.

    Args:
      config: The default config, changed in place.
    """
    config.data.source = ConfigDict(
        {
            "name": "pets",
            "fields": ("mask",),
            # Meanings of the values 1, 2 and 3 (border) of a trimap: pet, background
            # or ignore.
            "trimap": ("pet", "background", "pet"),
            "validate_fraction": 0.1,
        }
    )
    config.data.num_threads = 4
    config.data.image_size = 160
    config.data.global_batch_size = 16
    config.augment.crop_scale = (0.4, 1.0)
    config.augment.crop_ratio = (0.75, 1.3333)
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.backbone = ConfigDict({"name": "mobilenet_v2", "levels": (1, 2, 3, 4, 5)})
    config.finetune.learning_rate_multipliers = ("backbone=0.2",)
    config.finetune.frozen_norm_steps = -1
    config.optimizer.learning_rate = 2e-3
    config.train.total_steps = 1000
    config.train.epochs = placeholder(float)
    config.train.ema_decay = 0.99


def scratch(config: ConfigDict) -> None:
    """Trains a narrow ResNet-18 on photographs of pets, without pretrained weights.

    Args:
      config: The default config, changed in place.
    """
    backbone = config.backbone.copy_and_resolve_references()
    pets(config)
    config.backbone = backbone
    config.backbone.width = 32
    config.data.image_size = 128
    config.finetune.learning_rate_multipliers = ()
    config.finetune.frozen_norm_steps = 0
    config.train.total_steps = 2000
    config.train.ema_decay = 0.995


def masks(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on a folder with `images/` and `masks/`.

    Args:
      config: The default config, changed in place.
    """
    pets(config)
    config.data.source = ConfigDict(
        {
            "name": "masks",
            # Name of a class → its value in the files, or a tuple of values; the first
            # class is the background.
            "mask_classes": {"background": 0, "pet": 1},
            # Values that count in no loss and in no metric.
            "ignore": (255,),
            "validate_fraction": 0.1,
            "test_fraction": 0.0,
        }
    )


def set_network(config: ConfigDict, network: str, width: int) -> None:
    """Sets neck and head.

    Args:
      config: A config, changed in place.
      network: One of `NETWORKS`.
      width: Channels of the neck and the head.
    """
    head = {"name": "class_map", "dropout": 0.1}
    necks = {
        "fpn": {"name": "fpn", "width": width},
        "psp": {"name": "ppm", "kept_levels": (4,)},
        "deeplab": {"name": "deeplab", "width": 2 * width, "separable": True},
        "unet": {
            "name": "unet",
            "widths": (4 * width, 2 * width, width, width // 2),
            "upsampling": "nearest",
        },
        "identity": {"name": "identity"},
    }
    if network == "fpn":
        head = {"name": "semantic_fpn", "width": width}
    if network == "psp":
        head |= {"name": "auxiliary_class_map", "width": 2 * width}
        config.task.auxiliary_weight = 0.4
    config.neck = ConfigDict(necks[network])
    config.head = ConfigDict(head)
