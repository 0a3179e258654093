"""Parts from outside the package, as a user writes them in a module of their own."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fpn_jax.data.records import SourceInfo
from fpn_jax.metrics import sums
from fpn_jax.tasks.base import Task


class MyBackbone(nn.Module):
    """A backbone of two strided convolutions, with the levels 1 and 2."""

    width: int = 4
    dtype: jnp.dtype = jnp.float32
    levels: ClassVar[tuple[int, ...]] = (1, 2)
    native_size: ClassVar[int] = 32
    paddings: ClassVar[tuple[str, ...]] = ("symmetric",)
    paper_head: ClassVar[dict] = {"name": "pool"}

    @property
    def channels(self):
        return dict.fromkeys(self.levels, self.width)

    def cell_offset(self, image_size):
        return {1: (0.5, 0.5), 2: (0.5, 0.5)}

    @nn.compact
    def __call__(self, x, *, train):
        maps = {}
        for level in self.levels:
            conv = nn.Conv(self.width, (3, 3), 2, padding=1, name=f"conv{level}")
            x = maps[level] = nn.relu(conv(x))
        return maps


class MyNeck(nn.Module):
    """A neck that doubles the values of every map."""

    num_scales = 1

    def output_channels(self, channels):
        return channels

    def __call__(self, pyramid, *, train):
        return {level: 2 * x for level, x in pyramid.items()}


class MyPool(nn.Module):
    """A pooling that returns the mean of the squares of a map."""

    scale: float = 1.0

    def __call__(self, x, *, train):
        return self.scale * jnp.square(x).mean(axis=(1, 2))


class MyHead(nn.Module):
    """A head that returns a map of class logits, of the size of the finest level."""

    num_classes: int
    outputs: ClassVar[frozenset[str]] = frozenset({"logit_map"})

    @nn.compact
    def __call__(self, pyramid, *, train):
        finest = pyramid[min(pyramid)]
        logits = nn.Conv(self.num_classes, (1, 1), name="logits")(finest)
        return {"logit_map": logits.astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class MyTask(Task):
    """Segmentation at half of the image size: the target is every other pixel."""

    weight_of_pet: float = 1.0

    kind: ClassVar[str] = "classes"
    monitor: ClassVar[str] = "pixel_accuracy"
    needs: ClassVar[frozenset[str]] = frozenset({"label", "mask"})
    reads: ClassVar[frozenset[str]] = frozenset({"logit_map"})
    framing: ClassVar[str] = "letterbox"

    def head_arguments(self):
        return {"num_classes": 2}

    def _target(self, batch):
        return batch["mask"][:, ::2, ::2].astype(jnp.int32)

    def losses(self, predictions, batch):
        log_p = nn.log_softmax(predictions["logit_map"])
        target = self._target(batch)
        known = target < 2
        picked = jnp.take_along_axis(log_p, (target * known)[..., None], axis=-1)
        per_pixel = jnp.where(known, -picked[..., 0], 0)
        pet = jnp.where(target == 1, per_pixel, 0).mean(axis=(1, 2))
        background = jnp.where(target == 0, per_pixel, 0).mean(axis=(1, 2))
        return {"pet": self.weight_of_pet * pet, "background": background}

    def metrics(self, predictions, batch):
        target = self._target(batch)
        predicted = predictions["logit_map"].argmax(-1)
        known = (target < 2) * batch["weight"][:, None, None]
        return {"pixel_accuracy": sums.Accuracy.of(predicted, target, known)}

    def decode(self, predictions, image_size):
        classes = predictions["logit_map"].argmax(-1).astype(jnp.uint8)
        mask = classes.repeat(2, axis=1).repeat(2, axis=2)
        share = mask.mean(axis=(1, 2))
        return {
            "mask": mask,
            "label": (share > 0.5).astype(jnp.int32),
            "probabilities": jnp.stack([1 - share, share], axis=1),
        }

    def keep(self, answer, batch):
        # The metrics of masks are computed on the device, so no mask is kept.
        return {
            "label": batch["label"],
            "predicted": answer["label"],
            "probabilities": answer["probabilities"],
        }


class MySource:
    """A source of dark and bright grey squares."""

    def __init__(self, split, image_size, brightness=100):
        self.size, self.brightness = image_size, brightness
        self.count = {"train": 32, "validate": 16, "test": 8}[split]
        self.info = SourceInfo(classes=("dark", "bright"), fields=("label",))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        level = np.uint8(50 + self.brightness * (index % 2))
        image = np.full((self.size, self.size, 3), level)
        return {"image": image, "label": index % 2}

    def id(self, index):
        return f"square {index}"
