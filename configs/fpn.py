"""A cat/dog classifier on a feature pyramid: the complete config, commented.

`--config=configs/fpn.py` learns from drawn cats and dogs in a few minutes on a CPU.
Variants, as `--config=configs/fpn.py:VARIANT`:

  smoke         seconds instead of minutes: runs everything, hardly trained
  folder        your own photographs: add --config.data.root=DIR
  cats_vs_dogs  23,262 photographs through TFDS, ResNet-50 at 224 px in bfloat16

Any key can be set on the command line: `--config.optimizer.learning_rate=0.05`. Each
dict holds the constructor arguments of one object.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
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
    """Returns the default: a narrow ResNet-18 on drawn images of 64 px."""
    return ConfigDict(
        {
            "data": {
                # drawn, folder or tfds, each with arguments of its own.
                "source": {
                    "name": "drawn",
                    # Each is drawn once: new ones train better than repeated ones.
                    "train_records": 28800,
                    "validate_records": 1000,
                    "test_records": 1000,
                    "seed": 0,
                },
                # folder: contains Train/Validate/Test × Cat/Dog. tfds: its data_dir.
                "root": "",
                "image_size": 64,
                "global_batch_size": 32,
                # Evaluation keeps this share of the short side; 1 keeps all of it.
                "crop_fraction": 1.0,
                # stop at a file that cannot be decoded, or skip and list it.
                "on_bad_file": "stop",
                # RGB behind the transparent pixels of a file.
                "background": (255, 255, 255),
                # Training decodes JPEGs with fast arithmetic, and at 1/2, 1/4 or 1/8 of
                # their size where the crop is that much larger than image_size.
                "quick_decoding": True,
                # Drawing holds Python's lock, so more threads would only wait for each
                # other; decoders of files release it.
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
            },
            # Mixes pairs of training images, on the device. Zero switches one off.
            "mix": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0},
            "backbone": {"name": "resnet18", "width": 24},
            "neck": {
                "name": "fpn",
                "width": 32,
                # Levels above the backbone's coarsest, made by max_pool or by conv.
                "extra_levels": 0,
                "extra": "max_pool",
                # Resizes a coarser map to the finer one: nearest, bilinear, …, or a
                # dict with its name and arguments.
                "upsampling": "nearest",
                # none, or ppm or aspp on the coarsest map before its lateral; or a
                # dict with its name and arguments.
                "context": "none",
                # Normalization after every convolution: none, batch or group.
                "norm": "none",
            },
            # Any pooling of --mode=list over each level, concatenated; or a dict with
            # its name and arguments, such as {"name": "gem", "p": 3.0}.
            "head": {"name": "pool", "pool": "average", "dropout": 0.0},
            "model": {
                # Type of all convolutions; parameters and sums stay float32.
                "dtype": "float32",
                # Statistics of ImageNet's pixels, on the scale 0 to 1.
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            # Weights that the training begins with, instead of random numbers.
            "pretrained": {
                # A .safetensors, .npz or .pth file of torchvision or timm, for the
                # backbone; or the workdir of a run of your own.
                "path": "",
                # Preprocessing of the file's network: torchvision, timm, inception or
                # tensorflow; "" takes the family's usual one. It sets model.mean,
                # model.std, and the backbone's padding and epsilon.
                "recipe": "",
                # Parts to take from a run of your own: backbone, neck, head.
                "parts": ("backbone",),
            },
            # Parts are named by their parameters: backbone, backbone/stage1, neck, …
            "finetune": {
                # ("backbone/stem", "backbone=200"): the first never trains, the rest
                # of the backbone from step 200 on.
                "freeze": (),
                # ("backbone=0.1",): a tenth of the learning rate.
                "learning_rate_multipliers": (),
                # Steps in which the backbone's BatchNorm keeps its statistics, and its
                # stochastic depth is off; -1 means all.
                "frozen_norm_steps": 0,
            },
            # What is learned.
            "task": {
                "name": "classification",
                "label_smoothing": 0.0,
                "class_weights": (),
            },
            "optimizer": {
                # sgd or adamw.
                "name": "adamw",
                # Peak after the warm-up; a cosine lowers it to 0.
                "learning_rate": 2e-3,
                "warmup_steps": 50,
                # Kernels only; norms and biases do not decay.
                "weight_decay": 0.01,
                "momentum": 0.9,
                "nesterov": False,
                "clip_norm": 1.0,
            },
            "train": {
                # Length of the run: optimizer steps, or passes over the data. Give one
                # of them; on the command line it replaces the other.
                "total_steps": placeholder(int),
                "epochs": 1.0,
                "seed": 0,
                # Steps between evaluations, each of which saves; 0: once an epoch.
                "evaluate_every_steps": 300,
                # Steps between entries of metrics.jsonl, exact means since the last.
                "log_every_steps": 1,
                # Slices of a batch that pass through the model one after the other.
                "accumulation_steps": 1,
                # Decay of the moving average that is evaluated and saved; 0 is off.
                "ema_decay": 0.98,
                # Evaluations without a better one after which the run ends; 0: never.
                "early_stopping_evaluations": 0,
                # At a step whose loss or gradient is not finite: stop, or skip and
                # count it.
                "on_nonfinite_step": "stop",
                # Number of newest checkpoints to keep; the best one is kept as well.
                "keep_checkpoints": 2,
            },
        }
    )


def smoke(config: ConfigDict) -> None:
    """Shrinks everything, to pass through all of the code in seconds."""
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
    """Learns from a few thousand photographs, from scratch: strong regularisation."""
    # A tenth of Train is split off where there is no Validate folder.
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
    """Trains the large one on a TPU VM or a GPU."""
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
