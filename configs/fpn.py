"""A cat/dog classifier on a feature pyramid: the complete config, with comments.

`--config=configs/fpn.py` trains on drawings of cats and dogs in a few minutes on a CPU.
`--config=configs/fpn.py:VARIANT` chooses a variant:

  smoke         a test run of a few seconds, too short for a good model
  folder        your own photographs: add --config.data.root=DIR
  cats_vs_dogs  23,262 photographs from TFDS, ResNet-50 at 224 px in bfloat16

The command line can set every key: `--config.optimizer.learning_rate=0.05`. Each dict
contains the arguments of one constructor.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: `smoke`, `folder`, `cats_vs_dogs`, or `""` for the default.

    Raises:
      ValueError: The variant is unknown.
    """
    variants = {
        "": lambda config: None,
        "smoke": smoke,
        "folder": folder,
        "cats_vs_dogs": cats_vs_dogs,
    }
    if variant not in variants:
        choices = ", ".join(name for name in variants if name)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = drawn()
    variants[variant](config)
    return config


def drawn() -> ConfigDict:
    """Returns the default config: a narrow ResNet-18 on drawn images of 64 px."""
    return ConfigDict(
        {
            "data": {
                # drawn, folder or tfds; each source has arguments of its own.
                "source": {
                    "name": "drawn",
                    # Each record is used once, because train.epochs is 1: new images
                    # train better than repeated ones.
                    "train_records": 28800,
                    "validate_records": 1000,
                    "test_records": 1000,
                    "seed": 0,
                },
                # folder: the folder with Train/Validate/Test × Cat/Dog. tfds: the
                # data_dir.
                "root": "",
                "image_size": 64,
                "global_batch_size": 32,
                # Fraction of the short side that evaluation keeps; 1 keeps all of it.
                "crop_fraction": 1.0,
                # At a file that cannot be decoded: stop, or skip and list it.
                "on_bad_file": "stop",
                # RGB behind transparent pixels, 0 to 255.
                "background": (255, 255, 255),
                # Whether training decodes JPEGs with fast arithmetic, and at 1/2, 1/4
                # or 1/8 of their size if the crop is that much larger than image_size.
                "quick_decoding": True,
                # Threads and worker processes that read records. Drawing does not
                # release Python's lock, so more threads would only wait for each other;
                # decoders of files release it.
                "num_threads": 1,
                "num_workers": 0,
            },
            # Random changes of training images, on the host. Zero switches one off.
            "augment": {
                "crop_scale": (0.9, 1.0),
                "crop_ratio": (0.95, 1.05),
                "flip": 0.5,
                "brightness": 0.0,
                "contrast": 0.0,
                "saturation": 0.0,
                "hue": 0.0,
                "randaugment_layers": 0,
                "randaugment_magnitude": 9.0,
                "erasing": 0.0,
                # Greatest angle to either side, in degrees, before the crop.
                "rotation": 0.0,
            },
            # Mixes pairs of training images, on the device. Zero switches one off.
            "mix": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0},
            "backbone": {"name": "resnet18", "width": 24},
            "neck": {
                "name": "fpn",
                "width": 32,
                # Levels above the backbone's coarsest level, computed by max_pool or
                # conv.
                "extra_levels": 0,
                "extra": "max_pool",
                # Resizes a coarser map to the size of the finer one: nearest, bilinear
                # and others, or a dict with name and arguments.
                "upsampling": "nearest",
                # A module between the coarsest map and its lateral convolution: none,
                # ppm or aspp, or a dict with name and arguments.
                "context": "none",
                # Normalization after every convolution: none, batch or group.
                "norm": "none",
            },
            # The pooling of each level; the levels are concatenated. --mode=list shows
            # the names. A dict sets arguments, such as {"name": "gem", "p": 3.0}.
            "head": {"name": "pool", "pool": "average", "dropout": 0.0},
            "model": {
                # Type of all convolutions; parameters and sums are always float32.
                "dtype": "float32",
                # Mean and standard deviation of ImageNet's pixels, from 0 to 1.
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            # Pretrained weights, instead of random initial weights.
            "pretrained": {
                # A .safetensors, .npz or .pth file of torchvision or timm with weights
                # of the backbone; or the workdir of a run of your own. Empty: none.
                "path": "",
                # How the network of the file was trained: torchvision, timm, inception
                # or tensorflow; "" takes what the file says, or the usual choice of the
                # architecture. mobilenet_v2 and efficientnet have no usual choice. The
                # recipe sets model.mean, model.std, and the backbone's padding and
                # epsilon.
                "recipe": "",
                # Parts of the model whose weights are used, if path is the workdir of a
                # run: backbone, neck, head.
                "parts": ("backbone",),
            },
            # Freezing and learning rates per part of the model. --mode=summary shows
            # the names of the parts: backbone, backbone/stage1, neck and others.
            "finetune": {
                # ("backbone/stem", "backbone=200"): the stem never trains, the rest of
                # the backbone trains from step 200 on.
                "freeze": (),
                # ("backbone=0.1",): the backbone has a tenth of the learning rate.
                "learning_rate_multipliers": (),
                # Number of first steps in which the backbone's BatchNorm does not
                # update its statistics and its stochastic depth is off; -1 means all
                # steps.
                "frozen_norm_steps": 0,
            },
            # The loss and the metrics.
            "task": {
                "name": "classification",
                "label_smoothing": 0.0,
                "class_weights": (),
            },
            "optimizer": {
                # sgd or adamw.
                "name": "adamw",
                # Peak after the linear warm-up; a cosine schedule reduces it to 0.
                "learning_rate": 2e-3,
                "warmup_steps": 50,
                # Applies to kernels only, not to norm parameters and biases.
                "weight_decay": 0.01,
                "momentum": 0.9,
                "nesterov": False,
                "clip_norm": 1.0,
            },
            "train": {
                # Length of the run, as optimizer steps or as epochs. Set one of them;
                # the one that the command line sets replaces the other.
                "total_steps": placeholder(int),
                "epochs": 1.0,
                "seed": 0,
                # Steps between evaluations, each of which saves a checkpoint; 0 means
                # once per epoch.
                "evaluate_every_steps": 300,
                # Steps between entries of metrics.jsonl. An entry is the exact mean
                # over the steps since the last entry.
                "log_every_steps": 1,
                # Number of slices of a batch that pass through the model one after the
                # other, to save memory.
                "accumulation_steps": 1,
                # Decay of the moving average of the weights, which is evaluated and
                # exported; 0 is off.
                "ema_decay": 0.98,
                # Number of evaluations in a row without a new best one after which the
                # run ends; 0 means no early stopping.
                "early_stopping_evaluations": 0,
                # At a step whose loss or gradient is not finite: stop, or skip and
                # count the step.
                "on_nonfinite_step": "stop",
                # Number of newest checkpoints to keep. The best checkpoint is kept too.
                "keep_checkpoints": 2,
            },
        }
    )


def smoke(config: ConfigDict) -> None:
    """Makes everything small, so that a run takes seconds.

    Args:
      config: The default config, changed in place.
    """
    config.data.image_size = 32
    config.data.global_batch_size = 32
    config.data.source.train_records = 256
    config.data.source.validate_records = 96
    config.data.source.test_records = 64
    config.backbone.width = 8
    config.neck.width = 16
    config.optimizer.warmup_steps = 2
    config.train.epochs = 2.0
    config.train.evaluate_every_steps = 8


def folder(config: ConfigDict) -> None:
    """Trains from scratch on a few thousand photographs, with strong regularization.

    Args:
      config: The default config, changed in place.
    """
    # A tenth of Train becomes the validation split if there is no Validate folder.
    config.data.source = ConfigDict({"name": "folder", "validate_fraction": 0.1})
    config.data.num_threads = 4
    config.data.image_size = 96
    config.data.global_batch_size = 32
    config.data.crop_fraction = 0.875
    config.augment.crop_scale = (0.3, 1.0)
    config.augment.crop_ratio = (0.75, 1.3333)
    config.augment.brightness = 0.3
    config.augment.contrast = 0.3
    config.augment.saturation = 0.3
    config.mix.mixup_alpha = 0.2
    config.mix.cutmix_alpha = 1.0
    config.mix.probability = 0.5
    config.backbone.width = 48
    config.neck.width = 64
    config.task.label_smoothing = 0.1
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 1e-3
    config.optimizer.nesterov = True
    config.optimizer.clip_norm = 5.0
    config.optimizer.warmup_steps = 300
    config.train.epochs = 150.0
    config.train.evaluate_every_steps = 310
    config.train.ema_decay = 0.998


def cats_vs_dogs(config: ConfigDict) -> None:
    """Trains a ResNet-50 on a TPU VM or a GPU.

    Args:
      config: The default config, changed in place.
    """
    folder(config)
    config.data.source = ConfigDict(
        {"name": "tfds", "dataset": "cats_vs_dogs", "validate_fraction": 0.1}
    )
    config.data.image_size = 224
    config.data.global_batch_size = 256
    config.data.num_threads = 16
    config.backbone = ConfigDict({"name": "resnet50", "width": 64})
    config.neck.width = 256
    config.model.dtype = "bfloat16"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-5
    config.optimizer.nesterov = True
    config.optimizer.warmup_steps = 450
    config.train.epochs = 90.0
    config.train.evaluate_every_steps = 0
    config.train.log_every_steps = 10
    config.train.ema_decay = 0.9999
