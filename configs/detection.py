"""Finds every cat and dog head in a picture.

    python -m fpn_jax.main --config=configs/detection.py --workdir=runs/detect

`--config=configs/detection.py:VARIANT` chooses a variant:

  smoke  a test run of a few seconds, too short for a good model
"""

from ml_collections import ConfigDict

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `smoke`, or `""` for the default.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {"": lambda config: None, "smoke": smoke}
    if variant not in variants:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = drawn()
    variants[variant](config)
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn scenes of 128 px."""
    config = fpn.get_config()
    config.data.image_size = 128
    config.backbone.levels = (3, 4, 5)
    config.neck = ConfigDict({"name": "fpn", "width": 64})
    config.head = ConfigDict(
        {"name": "fcos", "width": 64, "convolutions": 2, "distance": "exp"}
    )
    config.task = ConfigDict(
        {
            "name": "fcos",
            # Greatest distance from the centre of a box, in strides.
            "radius": 1.5,
            # Greatest distance to a side on a level, in strides.
            "level_range": 4.0,
            "box_weight": 1.0,
            "centerness_weight": 1.0,
            # Least scores of a detection: to count for AP, and to be reported.
            "score_threshold": 0.05,
            "shown_threshold": 0.3,
            # Boxes with a greater IoU than the threshold are suppressed.
            "iou_threshold": 0.6,
            "suppression": "hard",
            # True lets boxes of different classes overlap.
            "by_class": False,
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
