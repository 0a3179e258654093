"""Finds the head of a cat or dog: is there one, where is it, and which of the two?

    python -m fpn_jax.main --config=configs/localization.py --workdir=runs/localized

`--config=configs/localization.py:VARIANT` chooses a variant:

  smoke    a test run of a few seconds, too short for a good model
  pets     head boxes of the Oxford-IIIT Pet data set, with a pretrained backbone: add
           --config.data.root=DIR --config.pretrained.path=FILE
           --config.pretrained.recipe=RECIPE
  boxes    your own photographs, with VOC XML files or a CSV table: add the arguments of
           pets, and --config.data.source.annotations=PATH
  scratch  like boxes, without pretrained weights
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `smoke`, `pets`, `boxes`, `scratch`, or `""` for the default.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {
        "": lambda config: None,
        "smoke": smoke,
        "pets": pets,
        "boxes": boxes,
        "scratch": scratch,
    }
    if variant not in variants:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = drawn()
    variants[variant](config)
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn images of 64 px."""
    config = fpn.get_config()
    # A fifth of the drawings show no animal.
    config.data.source.empty_fraction = 0.2
    config.neck = ConfigDict({"name": "fpn", "width": 48})
    config.head = ConfigDict({"name": "localizer", "width": 64, "convolutions": 2})
    config.task = ConfigDict(
        {
            "name": "localization",
            # l1, l2, smooth_l1 or giou.
            "box_loss": "giou",
            "box_weight": 2.0,
            "class_weight": 1.0,
            # An object is reported from this probability on.
            "threshold": 0.5,
        }
    )
    return config


def smoke(config: ConfigDict) -> None:
    """Makes everything small, so that a run takes seconds.

    Args:
      config: The default config, changed in place.
    """
    fpn.smoke(config)
    config.head.width = 32


def pets(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on a few hundred photographs of pets.

    Args:
      config: The default config, changed in place.
    """
    boxes(config)
    config.data.source = ConfigDict(
        {"name": "pets", "fields": ("boxes",), "validate_fraction": 0.1}
    )


def boxes(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on photographs with boxes in VOC XML or CSV files.

    Args:
      config: The default config, changed in place.
    """
    config.data.source = ConfigDict(
        {
            "name": "boxes",
            # A folder of .xml files, or a .csv file; relative to data.root.
            "annotations": "annotations",
            # Names of the classes; () takes all that are there.
            "classes": (),
            # 1 if a CSV table counts pixels from 1, 0 for continuous coordinates.
            "csv_origin": 0,
            "validate_fraction": 0.1,
            "test_fraction": 0.0,
        }
    )
    config.data.num_threads = 4
    config.data.image_size = 192
    config.data.global_batch_size = 16
    config.augment.crop_scale = (0.5, 1.0)
    config.augment.crop_ratio = (0.75, 1.3333)
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.backbone = ConfigDict({"name": "mobilenet_v2", "levels": (3, 4, 5)})
    config.neck.width = 64
    config.head.width = 64
    config.finetune.learning_rate_multipliers = ("backbone=0.2",)
    config.finetune.frozen_norm_steps = -1
    config.optimizer.learning_rate = 2e-3
    config.train.total_steps = 800
    config.train.epochs = placeholder(float)
    config.train.evaluate_every_steps = 100
    config.train.ema_decay = 0.99


def scratch(config: ConfigDict) -> None:
    """Trains a narrow ResNet-18 on photographs, without pretrained weights.

    Args:
      config: The default config, changed in place.
    """
    boxes(config)
    config.backbone = ConfigDict({"name": "resnet18", "width": 32})
    config.data.image_size = 128
    config.finetune.learning_rate_multipliers = ()
    config.finetune.frozen_norm_steps = 0
    config.train.total_steps = 2000
