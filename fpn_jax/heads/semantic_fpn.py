"""Panoptic Feature Pyramid Networks, arXiv 1901.02446: its head for segmentation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.class_map import check_class_map, class_logits
from fpn_jax.layers.conv import ConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels


class SemanticFPN(nn.Module):
    """The class of every cell of the finest map, from all levels of a feature pyramid.

    Every level goes through (3 × 3 convolution, normalization, ReLU, bilinear resize to
    the next finer level), until it has the size of the finest level, whose map is only
    convolved. The maps are added, and a 1 × 1 convolution gives the logits (section 3.1
    and figure 3). The task resizes the logits to the image.

    Attributes:
      num_mask_classes: Number of classes, 2 or more.
      width: Channels of every convolution.
      levels: Levels to read; None reads all that are given.
      dropout: Share of the channels of the sum that training drops, in [0, 1). The
        paper has none; segmentation_models.pytorch drops 0.2.
      align_corners: Whether the resize puts corner cells on corner cells, as in
        segmentation_models.pytorch.
      norm: Normalization, one of `fpn_jax.layers.norm.NORMS`; the paper's is "group".
      dtype: Type to compute in; parameters and logits are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"mask_logits"})

    num_mask_classes: int
    width: int = 128
    levels: tuple[int, ...] | None = None
    dropout: float = 0.0
    align_corners: bool = False
    norm: str = "group"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_class_map(self.num_mask_classes, self.dropout)
        errors.at_least("width", self.width, 1, whole=True)
        check_norm(self.norm, self.width)
        check_levels_given(self.levels, "the head")
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"mask_logits": [B, h, w, num_mask_classes] float32}`.

        Args:
          pyramid: Maps of any size.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        maps = select_levels(pyramid, self.levels or tuple(pyramid), "the head")
        finest = min(maps)
        total = 0
        for level, x in maps.items():
            total += self._at_finest(maps, level, x, finest, train)
        logits = class_logits(
            total, self.num_mask_classes, self.dropout, train, "logits"
        )
        return {"mask_logits": logits}

    def _at_finest(
        self, maps: Pyramid, level: int, x: jax.Array, finest: int, train: bool
    ) -> jax.Array:
        """Returns a level's map at the size of the finest level."""
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        for index, target in enumerate(range(level, finest - (level == finest), -1), 1):
            convolution = ConvNorm(
                self.width,
                kernel_size=3,
                numerics=numerics,
                name=f"level{level}_conv{index}",
            )
            x = nn.relu(convolution(x, train=train))
            if level > finest:
                size = _size(maps, target - 1, finest)
                x = resize_bilinear(x, size, align_corners=self.align_corners)
        return x


def _size(maps: Pyramid, level: int, finest: int) -> tuple[int, int]:
    """Returns the size of a level, from the size of the finest one."""
    return tuple(-(-side // 2 ** (level - finest)) for side in maps[finest].shape[1:3])
