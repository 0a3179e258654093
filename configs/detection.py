"""Finds every cat and dog head in a picture: its box, its class and a score.

    python -m fpn_jax.main --config=configs/detection.py --workdir=runs/detect

`--config=configs/detection.py:VARIANT` chooses the data:

  smoke    a test run of a few seconds, too short for a good model
  heads    your own photographs with boxes in VOC XML or CSV files, such as the heads of
           the Oxford-IIIT Pet data set, with a pretrained backbone: add
           --config.data.root=DIR --config.pretrained.path=FILE
           --config.pretrained.recipe=RECIPE
  scratch  the same without pretrained weights: add --config.data.root=DIR
  coco     photographs with a JSON file of COCO, and a pretrained backbone: add the
           arguments of heads, and --config.data.source.annotations=FILE

`:NETWORK`, or `:VARIANT+NETWORK` as in `:heads+fcos`, also chooses the network:

  fcos          without anchors, the default
  retinanet     RetinaNet: anchors, no normalization in the head, L1
  retinanet_v2  the second version of torchvision: group normalization, GIoU
  grid          YOLO: the cell of the middle, and the anchor of the nearest shape

Average precision needs pycocotools: pip install "fpn_jax[detection]".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import fpn

NETWORKS = ("fcos", "retinanet", "retinanet_v2", "grid")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `DATA`, `NETWORK` or `DATA+NETWORK`; see above.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {
        "": lambda config: None,
        "smoke": smoke,
        "heads": heads,
        "scratch": scratch,
        "coco": coco,
    }
    data, _, network = variant.partition("+")
    if data in NETWORKS and not network:
        data, network = "", data
    network = network or NETWORKS[0]
    if data not in variants or network not in NETWORKS:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(
            f"variant {variant!r} is unknown; choose one of {choices}, and add "
            f"+NETWORK for one of {', '.join(NETWORKS)}"
        )
    config = drawn()
    variants[data](config)
    set_network(config, network, width=32 if data == "smoke" else 64)
    # Objects of different classes may overlap, unlike the heads of a cat and a dog.
    config.task.by_class = data == "coco"
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn scenes of 160 px."""
    config = fpn.get_config()
    config.data.image_size = 160
    config.data.source = ConfigDict(
        {
            "name": "drawn_scenes",
            "train_records": 32000,
            "validate_records": 300,
            "test_records": 300,
            # Every picture shows none to so many animals.
            "max_animals": 4,
            # Least and greatest width of a head, as fractions of the picture.
            "sizes": (0.15, 0.6),
        }
    )
    config.backbone = ConfigDict({"name": "resnet18", "width": 24, "levels": (3, 4, 5)})
    config.neck = ConfigDict({"name": "fpn", "width": 64})
    config.data.global_batch_size = 16
    config.optimizer.learning_rate = 3e-3
    config.train.evaluate_every_steps = 300
    return config


def smoke(config: ConfigDict) -> None:
    """Makes everything small, so that a run takes seconds.

    Args:
      config: The default config, changed in place.
    """
    records = {"train_records": 64, "validate_records": 16, "test_records": 16}
    config.data.source.update(records)
    config.data.image_size = 64
    config.data.global_batch_size = 8
    config.backbone.width = 8
    config.neck.width = 16
    config.optimizer.warmup_steps = 2
    config.train.evaluate_every_steps = 4


def heads(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on photographs with boxes in VOC XML or CSV files.

    Args:
      config: The default config, changed in place.
    """
    photographs(config)
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


def coco(config: ConfigDict) -> None:
    """Fine-tunes MobileNetV2 on photographs with a JSON file of COCO.

    Args:
      config: The default config, changed in place.
    """
    photographs(config)
    config.data.source = ConfigDict(
        {
            "name": "coco",
            # A JSON file, relative to data.root or to the current folder.
            "annotations": "annotations.json",
            # The same of the other splits; without them, shares are held out.
            "validate_annotations": "",
            "test_annotations": "",
            # Names of the categories to use; () takes all.
            "classes": (),
            "validate_fraction": 0.1,
            "test_fraction": 0.0,
        }
    )


def photographs(config: ConfigDict) -> None:
    """Sets augmentation, backbone and schedule for a few hundred photographs.

    Args:
      config: The default config, changed in place.
    """
    config.data.num_threads = 4
    config.data.image_size = 192
    config.data.global_batch_size = 16
    config.augment.crop_scale = (0.4, 1.0)
    config.augment.crop_ratio = (0.75, 1.3333)
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.backbone = ConfigDict({"name": "mobilenet_v2", "levels": (3, 4, 5)})
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
    heads(config)
    config.backbone = ConfigDict({"name": "resnet18", "width": 32, "levels": (3, 4, 5)})
    config.data.image_size = 128
    config.finetune.learning_rate_multipliers = ()
    config.finetune.frozen_norm_steps = 0
    config.train.total_steps = 2000


def set_network(config: ConfigDict, network: str, width: int) -> None:
    """Chooses the head and the task.

    Args:
      config: The config, changed in place.
      network: One of `NETWORKS`.
      width: Channels of the convolutions of the head.
    """
    config.head = ConfigDict({"name": "fcos", "width": width, "convolutions": 2})
    config.task = ConfigDict(
        {
            "name": "fcos",
            # Least scores of a detection: to count for AP, and to be reported.
            "score_threshold": 0.05,
            "shown_threshold": 0.5,
            # Boxes with a greater IoU than the threshold are suppressed: hard, linear
            # or gaussian.
            "iou_threshold": 0.6,
            "suppression": "hard",
            # True lets boxes of different classes overlap.
            "by_class": False,
        }
    )
    setters = {
        "fcos": fcos,
        "retinanet": retinanet,
        "retinanet_v2": retinanet_v2,
        "grid": grid,
    }
    setters[network](config)


def fcos(config: ConfigDict) -> None:
    """Sets what FCOS alone has.

    Args:
      config: The config, changed in place.
    """
    # How a number becomes a distance: exp or relu.
    config.head.distance = "exp"
    # Greatest distance from the centre of a box, and to a side on a level, in strides.
    config.task.radius = 1.5
    config.task.level_range = 4.0
    config.task.box_weight = 1.0
    config.task.centerness_weight = 1.0


def retinanet(config: ConfigDict) -> None:
    """Sets what RetinaNet alone has.

    Args:
      config: The config, changed in place.
    """
    config.head.name = "dense"
    config.head.norm = "none"
    config.task.name = "retinanet"
    # Side of the smallest anchor in strides, sizes of an octave, height / width.
    config.task.anchor_scale = 3.0
    config.task.octaves = 3
    config.task.ratios = (0.7, 1.0, 1.4)
    # IoU from which an anchor is matched, and below which it is background.
    config.task.high = 0.5
    config.task.low = 0.4
    # l1, smooth_l1 or giou.
    config.task.box_loss = "l1"
    config.task.box_weight = 1.0


def retinanet_v2(config: ConfigDict) -> None:
    """Sets what the second version of torchvision changes.

    Args:
      config: The config, changed in place.
    """
    retinanet(config)
    config.head.norm = "group"
    config.task.box_loss = "giou"


def grid(config: ConfigDict) -> None:
    """Sets what YOLO alone has.

    Args:
      config: The config, changed in place.
    """
    config.head.name = "grid"
    config.head.level = 4
    config.task.name = "grid"
    # Width and height in pixels of the network's input; --mode=check proposes them.
    config.task.anchors = ((26, 26), (38, 38), (54, 54), (76, 76))
    config.task.rescore = True
    # A box with a greater IoU is not punished as background.
    config.task.ignore = 0.6
    config.task.coordinate_weight = 1.0
    config.task.object_weight = 5.0
    config.task.background_weight = 1.0
    config.task.class_weight = 1.0
