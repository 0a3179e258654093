"""PyramidModel: the one place where backbone, neck and head meet."""

from collections.abc import Iterable

import jax
from flax import linen as nn

from fpn_jax.errors import InputError
from fpn_jax.ops.normalization import normalize
from fpn_jax.pyramid import Pyramid


def check_image_size(image_size: tuple[int, int], levels: Iterable[int]) -> None:
    """Refuses an image that does not fill one cell of its coarsest level.

    Args:
      image_size: Height and width, in pixels.
      levels: Levels that are computed from the image.

    Raises:
      InputError: The short side is below `2**max(levels)`.
    """
    coarsest = max(levels)
    least = 2**coarsest
    if min(image_size) < least:
        raise InputError(
            f"image size {image_size[0]} × {image_size[1]} is too small for level "
            f"{coarsest}; its short side must be at least {least} pixels"
        )


class PyramidModel(nn.Module):
    """Images → normalized images → backbone → neck → head.

    Attributes:
      backbone: Image → pyramid; has `levels` and `channels`.
      neck: Pyramid → pyramid; has `output_channels`.
      head: Pyramid → predictions.
      mean: Of the pixels the backbone knows, by channel, on the scale 0 to 1;
        ImageNet's by default.
      std: Their standard deviation, by channel, on the scale 0 to 1.
    """

    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

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
        check_image_size(images.shape[1:3], self.backbone.levels)
        pixels = normalize(images, self.mean, self.std)
        return self.neck(self.backbone(pixels, train=train), train=train)

    def predict(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns the head's predictions from its pyramid, the result of `features`.

        Args:
          pyramid: Maps of `channels`.
          train: Whether dropout is active.
        """
        return self.head(pyramid, train=train)
