"""Finds eyes, nose and ear tips of a cat or dog, from heat maps.

    python -m fpn_jax.main --config=configs/landmarks.py --workdir=runs/landmarks

`--config=configs/landmarks.py:VARIANT` chooses a variant:

  smoke      a test run of a few seconds, too short for a good model
  points     coordinates directly instead of heat maps
  mobilenet  drawn animals, with the network of cats and its pretrained backbone: add
             --config.pretrained.path=FILE --config.pretrained.recipe=RECIPE
  cats       photographs of the CAT data set (NAME.jpg and NAME.jpg.cat), from a run of
             mobilenet: add --config.data.root=DIR --config.pretrained.path=RUN
             --config.pretrained.parts="('backbone','neck','head')"; or from a file of
             weights, as for mobilenet
  scratch    the same with the default network, without pretrained weights or from a
             run of the default config: add --config.data.root=DIR, and path and parts
             of the run
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `smoke`, `points`, `mobilenet`, `cats`, `scratch`, or `""` for the
        default.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {
        "": lambda config: None,
        "smoke": smoke,
        "points": points,
        "mobilenet": mobilenet,
        "cats": cats,
        "scratch": scratch,
    }
    if variant not in variants:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = drawn()
    variants[variant](config)
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn images of 160 px."""
    config = fpn.get_config()
    config.data.image_size = 160
    config.data.source.train_records = 44800
    config.data.source.validate_records = 500
    config.data.source.test_records = 500
    config.neck = ConfigDict({"name": "fpn", "width": 48})
    config.head = ConfigDict(
        {"name": "landmark_heat_maps", "width": 64, "convolutions": 2}
    )
    config.task = ConfigDict(
        {
            "name": "landmark_heat_maps",
            # The landmarks whose distance is the unit of the errors.
            "eyes": (0, 1),
            "visibility_weight": 0.1,
            # Width of the Gaussians, in cells.
            "sigma": 1.5,
            # cross_entropy over the cells of a map, or squared.
            "loss": "cross_entropy",
        }
    )
    config.train.evaluate_every_steps = 350
    return config


def smoke(config: ConfigDict) -> None:
    """Makes everything small, so that a run takes seconds.

    Args:
      config: The default config, changed in place.
    """
    fpn.smoke(config)
    config.head.width = 32


def points(config: ConfigDict) -> None:
    """Predicts coordinates directly, with the wing loss.

    Args:
      config: The default config, changed in place.
    """
    config.head = ConfigDict(
        {"name": "landmark_points", "width": 64, "convolutions": 1, "level": 3}
    )
    config.task = ConfigDict(
        {
            "name": "landmark_points",
            "eyes": (0, 1),
            "visibility_weight": 0.1,
            # l1, l2, smooth_l1 or wing, of coordinates in per cent of the image.
            "loss": "wing",
        }
    )


def mobilenet(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on drawn images of 192 px.

    Args:
      config: The default config, changed in place.
    """
    config.backbone = ConfigDict({"name": "mobilenet_v2"})
    config.neck.width = 64
    config.data.image_size = 192
    config.data.source.train_records = 12800
    config.finetune.learning_rate_multipliers = ("backbone=0.2",)
    config.finetune.frozen_norm_steps = -1
    config.train.evaluate_every_steps = 200


def cats(config: ConfigDict) -> None:
    """Fine-tunes the network of `mobilenet` on photographs of cats.

    Args:
      config: The default config, changed in place.
    """
    mobilenet(config)
    scratch(config)
    # A face is often less than a tenth of a photograph.
    config.data.image_size = 320
    config.data.global_batch_size = 8
    config.augment.crop_scale = (0.08, 1.0)
    config.augment.rotation = 30.0
    config.augment.randaugment_layers = 2
    config.augment.erasing = 0.3
    config.optimizer.learning_rate = 1e-3
    config.train.total_steps = 600
    config.train.evaluate_every_steps = 200


def scratch(config: ConfigDict) -> None:
    """Trains the network of the drawn animals on photographs of cats.

    Args:
      config: The default config, changed in place.
    """
    config.data.source = ConfigDict(
        {
            "name": "cat_points",
            # The five points that drawn animals have too; the mouth is by the nose.
            "points": (
                "left eye",
                "right eye",
                "mouth",
                "left ear tip",
                "right ear tip",
            ),
            "validate_fraction": 0.15,
            "test_fraction": 0.0,
        }
    )
    config.data.num_threads = 4
    config.data.global_batch_size = 16
    config.augment.crop_scale = (0.5, 1.0)
    config.augment.crop_ratio = (0.75, 1.3333)
    config.augment.brightness = 0.3
    config.augment.contrast = 0.3
    config.augment.saturation = 0.3
    config.optimizer.learning_rate = 2e-3
    config.train.total_steps = 800
    config.train.epochs = placeholder(float)
    config.train.ema_decay = 0.99
