"""Heads for landmarks: a heat map for every point, or its coordinates directly."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.places import convolved
from fpn_jax.layers.conv import LECUN_UNIFORM, conv
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.ops.pooling import global_max_pool
from fpn_jax.ops.spatial_pyramid import adaptive_average_pool
from fpn_jax.ops.upsampling import resize_bilinear
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels


class _Landmarks(nn.Module):
    """What both heads have: convolutions, and the visibility.

    Attributes:
      num_landmarks: Number of points `K`, 1 or more.
      width: Channels of the convolutions.
      convolutions: Number of 3 × 3 convolutions before the predictions.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    num_landmarks: int
    width: int = 128
    convolutions: int = 2
    norm: str = "group"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("num_landmarks", self.num_landmarks, 1, whole=True)
        errors.at_least("width", self.width, 1, whole=True)
        errors.at_least("convolutions", self.convolutions, 1, whole=True)
        check_norm(self.norm, self.width)
        super().__post_init__()

    def _features(self, maps: Pyramid, train: bool) -> Pyramid:
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        found = convolved(maps, self.width, self.convolutions, numerics, train)
        return dict(zip(maps, (x.astype(jnp.float32) for x in found), strict=True))

    def _visibility(self, x: jax.Array) -> jax.Array:
        """Returns `[B, K]`, from the mean and the maximum of the features."""
        # `jnp.max` finds the winner again in the gradient, by equality. A compiled
        # program may round the map differently there, and then divides by 0 winners.
        vector = jnp.concatenate([x.mean((1, 2)), global_max_pool(x)], axis=-1)
        return nn.Dense(self.num_landmarks, name="visibility")(vector)


class LandmarkHeatMaps(_Landmarks):
    """A heat map for every landmark, at the size of the finest level.

    Every level gives a map through the same 3 × 3 convolutions and a 1 × 1 convolution
    of its own; coarse maps are resized bilinearly, and all are added. As logits of a
    softmax over the cells, the coarse maps say where the animal is, and the fine ones
    where the point is.

    Attributes:
      num_landmarks: Number of points `K`, 1 or more.
      width: Channels of the convolutions.
      convolutions: Number of 3 × 3 convolutions before the predictions.
      levels: Levels to read; None reads all that are given.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"heat_maps", "visibility_logits"})

    levels: tuple[int, ...] | None = None

    def __post_init__(self):
        check_levels_given(self.levels, "the head")
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `heat_maps` `[B, h, w, K]` and `visibility_logits` `[B, K]`, float32.

        Args:
          pyramid: Maps of any size, with equal numbers of channels.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        levels = self.levels or tuple(pyramid)
        features = self._features(select_levels(pyramid, levels, "the head"), train)
        finest, total = min(features), 0
        for level, x in features.items():
            one = conv(
                self.num_landmarks,
                1,
                dtype=jnp.float32,
                name=f"heat_maps{level}",
                use_bias=True,
                kernel_init=LECUN_UNIFORM,
            )
            total += resize_bilinear(one(x), features[finest].shape[1:3])
        visibility = self._visibility(features[max(features)])
        return {"heat_maps": total, "visibility_logits": visibility}


class LandmarkPoints(_Landmarks):
    """The coordinates of every landmark, from one level averaged to a grid.

    Attributes:
      num_landmarks: Number of points `K`, 1 or more.
      width: Channels of the convolutions.
      convolutions: Number of 3 × 3 convolutions before the predictions.
      level: Level to read; None reads the finest that is given.
      grid: Cells a side that the map is averaged to before it is flattened.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"points", "visibility_logits"})

    level: int | None = None
    grid: int = 7

    def __post_init__(self):
        errors.at_least("grid", self.grid, 1, whole=True)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `points` `[B, K, 2]` and `visibility_logits` `[B, K]`, float32.

        The points are x and y in shares of the image, and not limited to it.

        Args:
          pyramid: Maps of any size.
          train: Whether batch statistics are used and the running averages updated.

        Raises:
          ValueError: `level` is missing.
        """
        level = min(pyramid) if self.level is None else self.level
        maps = select_levels(pyramid, (level,), "the head")
        x = self._features(maps, train)[level]
        flat = jax.lax.collapse(adaptive_average_pool(x, self.grid), 1)
        middle = nn.initializers.constant(0.5)
        points = nn.Dense(2 * self.num_landmarks, bias_init=middle, name="points")(flat)
        return {
            "points": points.reshape(-1, self.num_landmarks, 2),
            "visibility_logits": self._visibility(x),
        }
