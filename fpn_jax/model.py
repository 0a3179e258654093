"""The model: backbone, neck and head put together."""

from collections.abc import Iterable

import jax
from flax import linen as nn

from fpn_jax import backbones, heads, necks
from fpn_jax.errors import InputError
from fpn_jax.imaging.pyramids import gaussian_pyramid
from fpn_jax.ops.normalization import normalize
from fpn_jax.ops.sliding_window import windows
from fpn_jax.pyramid import Backbone, Head, Neck, Pyramid

PARTS = {
    "backbone": backbones.REGISTRY,
    "neck": necks.REGISTRY,
    "head": heads.REGISTRY,
}
"""Part of a `PyramidModel` → the registry that builds it."""

MAX_IMAGE_SIDE = 2**14
"""Pixels; a larger size is taken for a mistake, before memory is allocated."""


def check_image_size(
    image_size: tuple[int, int], levels: Iterable[int], num_scales: int = 1
) -> None:
    """Refuses an image that is too large, or too small for the coarsest level.

    Args:
      image_size: Height and width, in pixels.
      levels: Levels that the backbone computes.
      num_scales: Number of images that the backbone reads: the image itself, and
        copies, each half the size of the one before.

    Raises:
      InputError: The short side of the smallest copy is below `2**max(levels)`, or the
        long side of the image is above `MAX_IMAGE_SIDE`.
    """
    if max(image_size) > MAX_IMAGE_SIDE:
        raise InputError(
            f"image size {image_size[0]} × {image_size[1]} is too large; the limit is "
            f"{MAX_IMAGE_SIDE} pixels a side"
        )
    coarsest = max(levels)
    # Smallest side that still fills one coarsest cell after `num_scales - 1` halvings,
    # each rounded up: `ceil(least / 2**(num_scales - 1)) >= 2**coarsest`.
    least = (2**coarsest - 1) * 2 ** (num_scales - 1) + 1
    if min(image_size) < least:
        copies = f" of the smallest of {num_scales} scales" if num_scales > 1 else ""
        raise InputError(
            f"image size {image_size[0]} × {image_size[1]} is too small for level "
            f"{coarsest}{copies}; its short side must be at least {least} pixels"
        )


class PyramidModel(nn.Module):
    """Images → normalized images → backbone → neck → head.

    Attributes:
      backbone: Image → pyramid.
      neck: Pyramid → pyramid. If its `num_scales` is above 1, the backbone runs, with
        the same parameters, over as many copies of the images, each half the size of
        the one before, and the neck reads all pyramids. In training, every copy is
        normalized by its own batch statistics, and the running averages are updated
        once for each copy.
      head: Pyramid → predictions.
      mean: Mean of the pixels that the backbone expects, by channel, on the scale 0 to
        1; ImageNet's by default.
      std: Standard deviation of these pixels, by channel, on the scale 0 to 1.
      frozen_norm: Whether the backbone behaves in training as in evaluation: its batch
        normalization uses the stored averages and does not update them, and it drops
        nothing at random, such as blocks. Its parameters are trained. Neck and head
        behave as in training.
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
        # The neck refuses a backbone that lacks the levels or channels it needs.
        self.neck.output_channels(self.backbone.channels)
        super().__post_init__()

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, of the pyramid that the head reads."""
        return self.neck.output_channels(self.backbone.channels)

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions, such as `{"logits": [B, num_classes]}`.

        Args:
          images: `[B, H, W, 3]`, values 0 to 255, uint8 or floating.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: `images` have another shape.
          InputError: The images are too large, or too small for the coarsest level.
        """
        return self.predict(self.features(images, train=train), train=train)

    def features(self, images: jax.Array, *, train: bool) -> Pyramid:
        """Returns the pyramid that the head reads.

        Args:
          images: `[B, H, W, 3]`, values 0 to 255, uint8 or floating.
          train: Whether batch statistics are those of training.

        Raises:
          ValueError: `images` have another shape.
          InputError: The images are too large, or too small for the coarsest level.
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
        """Returns the head's predictions.

        Args:
          pyramid: The result of `features`.
          train: Whether dropout is active.
        """
        return self.head(pyramid, train=train)

    def slide(self, images: jax.Array, window: tuple[int, int]) -> dict[str, jax.Array]:
        """Returns the predictions for every window of larger images.

        The maps of the images are computed once, and the head reads each part of them
        that is as large as the maps of a window: the convolutional form of a sliding
        window (arXiv 1312.6229), for any head whose predictions are arrays. Windows lie
        a cell of the coarsest level apart. Where backbone and neck pad nothing, the
        predictions are those for the cropped windows; where they pad, a crop has zeros
        around it where a window has its surroundings, and the predictions differ.

        Args:
          images: `[B, H, W, 3]`, values 0 to 255, uint8 or floating.
          window: Height and width of a window, in pixels: the size of the images that
            the head was made for.

        Returns:
          The predictions of the head, `[B, n, m, …]`, for `n × m` windows.

        Raises:
          ValueError: `images` have another shape.
          InputError: The images are smaller than a window.
        """
        alone = self.clone(parent=None, name=None)
        of_window = jax.eval_shape(
            lambda variables, x: alone.apply(
                variables, x, train=False, method="features"
            ),
            self.variables,
            jax.ShapeDtypeStruct((1, *window, 3), images.dtype),
        )
        pyramid = self.features(images, train=False)
        cells = {level: x.shape[1:3] for level, x in of_window.items()}
        parts, places = windows(pyramid, cells)
        found = self.predict(parts, train=False)
        grid = (len(images), *places)
        return {name: x.reshape(*grid, *x.shape[1:]) for name, x in found.items()}


class PaperClassifier(nn.Module):
    """A classifier without a neck: the head reads the coarsest map of the backbone.

    Attributes:
      backbone: Image → pyramid.
      head: Pyramid of one level → predictions.
    """

    backbone: Backbone
    head: Head

    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions, such as `{"logits": [B, num_classes]}`.

        Args:
          images: Normalized images, `[B, H, W, C]`, of any number of channels.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          InputError: The images are too large, or too small for the coarsest level.
        """
        check_image_size(images.shape[1:3], self.backbone.levels)
        pyramid = self.backbone(images, train=train)
        coarsest = max(pyramid)
        return self.head({coarsest: pyramid[coarsest]}, train=train)


def paper_classifier(
    name: str, num_classes: int = 1000, **backbone_arguments: object
) -> PaperClassifier:
    """Returns the network of a paper: a backbone and the paper's own classifier.

    The parameters have the layout of imported weights, `backbone/…` and `head/…`.

    Args:
      name: One of `fpn_jax.backbones.names()`.
      num_classes: Number of classes; ImageNet has 1000.
      **backbone_arguments: Arguments of `fpn_jax.backbones.build`. The default padding
        is "paper" where the backbone has it, because the paper's classifier reads maps
        of the paper's sizes.

    Raises:
      InputError: The name or an argument is unknown.
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
