"""The one place where backbones, necks and heads meet."""

from collections.abc import Iterable

import jax
from flax import linen as nn

from fpn_jax import backbones, heads, necks
from fpn_jax.errors import InputError
from fpn_jax.imaging.pyramids import gaussian_pyramid
from fpn_jax.ops.normalization import normalize
from fpn_jax.pyramid import Backbone, Head, Neck, Pyramid

PARTS = {
    "backbone": backbones.REGISTRY,
    "neck": necks.REGISTRY,
    "head": heads.REGISTRY,
}
"""Part of a `PyramidModel` → the registry that builds it."""

MAX_IMAGE_SIDE = 2**14
"""Pixels; a mistake in a config is refused before memory is asked for it."""


def check_image_size(
    image_size: tuple[int, int], levels: Iterable[int], num_scales: int = 1
) -> None:
    """Refuses an image of which a copy does not fill one cell of its coarsest level.

    Args:
      image_size: Height and width, in pixels.
      levels: Levels that the backbone computes.
      num_scales: Number of copies it computes them of, each half the size of the one
        before; the first is the image.

    Raises:
      InputError: The short side of the smallest copy is below `2**max(levels)`, or the
        long one of the image above `MAX_IMAGE_SIDE`.
    """
    if max(image_size) > MAX_IMAGE_SIDE:
        raise InputError(
            f"image size {image_size[0]} × {image_size[1]} is too large; the limit is "
            f"{MAX_IMAGE_SIDE} pixels a side"
        )
    coarsest = max(levels)
    # Of the sides that halve, rounded up, to a copy's least side, the smallest.
    least = (2**coarsest - 1) * 2 ** (num_scales - 1) + 1
    if min(image_size) < least:
        copies = f" of the smallest of {num_scales} copies" if num_scales > 1 else ""
        raise InputError(
            f"image size {image_size[0]} × {image_size[1]} is too small for level "
            f"{coarsest}{copies}; its short side must be at least {least} pixels"
        )


class PyramidModel(nn.Module):
    """Images → normalized images → backbone → neck → head.

    Attributes:
      backbone: Image → pyramid; has `levels` and `channels`.
      neck: Pyramid → pyramid; has `output_channels` and `num_scales`. Where that is
        above 1, the backbone runs over so many copies of the images, each half the size
        of the one before, with the same parameters; the neck gets a pyramid of each. In
        training every copy is normalized by its own batch statistics, and the running
        averages are updated once for each.
      head: Pyramid → predictions.
      mean: Of the pixels the backbone knows, by channel, on the scale 0 to 1;
        ImageNet's by default.
      std: Their standard deviation, by channel, on the scale 0 to 1.
      frozen_norm: Whether the backbone behaves in training as in evaluation: its batch
        normalization uses the stored averages and leaves them, and what it drops at
        random, such as blocks, stays. Its parameters train, as do neck and head, whose
        own normalization is that of training.
    """

    backbone: Backbone
    neck: Neck
    head: Head
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    frozen_norm: bool = False

    def __post_init__(self):
        if len(self.mean) != 3:
            raise InputError(f"mean is {self.mean}; it must be three numbers")
        if len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(f"std is {self.std}; it must be three positive numbers")
        # Raises where the neck wants levels that the backbone does not give.
        self.neck.output_channels(self.backbone.channels)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels of the pyramid that the head reads."""
        return self.neck.output_channels(self.backbone.channels)

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions, such as `{"logits": [B, num_classes]}`.

        Args:
          images: `[B, H, W, 3]`, values 0 to 255, uint8 or floating.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: `images` have another shape.
          InputError: They are smaller than the coarsest level needs.
        """
        return self.predict(self.features(images, train=train), train=train)

    def features(self, images: jax.Array, *, train: bool) -> Pyramid:
        """Returns the pyramid that the head reads.

        Args:
          images: `[B, H, W, 3]`, values 0 to 255, uint8 or floating.
          train: Whether batch statistics are those of training.

        Raises:
          ValueError: `images` have another shape.
          InputError: They are smaller than the coarsest level needs.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; it must be [B, H, W, 3]"
            )
        num_scales = self.neck.num_scales
        check_image_size(images.shape[1:3], self.backbone.levels, num_scales)
        pixels = normalize(images, self.mean, self.std)
        pyramids = [
            self.backbone(copy, train=train and not self.frozen_norm)
            for copy in gaussian_pyramid(pixels, num_scales).values()
        ]
        return self.neck(*pyramids, train=train)

    def predict(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions from its pyramid, the result of `features`.

        Args:
          pyramid: Maps of `channels`.
          train: Whether dropout is active.
        """
        return self.head(pyramid, train=train)


class PaperClassifier(nn.Module):
    """A backbone's coarsest map, read by a head: a classifier without a pyramid.

    Attributes:
      backbone: Image → pyramid.
      head: Pyramid of one level → predictions.
    """

    backbone: Backbone
    head: Head

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions, such as `{"logits": [B, num_classes]}`.

        Args:
          images: Normalized, `[B, H, W, C]`, of any number of channels.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          InputError: They are smaller than the coarsest level needs.
        """
        check_image_size(images.shape[1:3], self.backbone.levels)
        pyramid = self.backbone(images, train=train)
        coarsest = max(pyramid)
        return self.head({coarsest: pyramid[coarsest]}, train=train)


def paper_classifier(
    name: str, num_classes: int = 1000, **backbone_arguments: object
) -> PaperClassifier:
    """Returns a network as its paper has it: a backbone and the classifier behind it.

    The layout of parameters, `backbone/…` and `head/…`, is that of published weights
    after they are imported.

    Args:
      name: One of `fpn_jax.backbones.names()`.
      num_classes: Number of classes; ImageNet has 1000.
      **backbone_arguments: As of `fpn_jax.backbones.build`. Where the backbone has the
        padding "paper", that is the default here, for the paper's classifier reads maps
        of the paper's sizes.

    Raises:
      InputError: The name or an argument is not understood.
    """
    backbone = backbones.build(name, **backbone_arguments)
    if "padding" not in backbone_arguments and "paper" in backbone.paddings:
        backbone = backbone.clone(padding="paper")
    arguments = dict(backbone.paper_head)
    head = arguments.pop("name")
    if "dtype" in heads.accepts(head):
        arguments["dtype"] = backbone.dtype
    return PaperClassifier(
        backbone, heads.build(head, num_classes=num_classes, **arguments)
    )
