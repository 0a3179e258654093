"""The head of FCOS, arXiv 1904.01355."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.heads.towers import BACKGROUND, Tower, output
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels

DISTANCES = {"relu": nn.relu, "exp": jnp.exp}
"""Name of a function → number that a cell predicts to a distance of 0 or more."""


class FCOS(nn.Module):
    """Class, distances to the four sides, and centerness, for every cell.

    One tower of convolutions for the classes, one for distances and centerness; all
    levels share them. `"exp"` with a factor for each level is "FCOS: Fully
    Convolutional One-Stage Object Detection" (arXiv 1904.01355); `"relu"` is its second
    version (arXiv 2006.09214), and what torchvision has, without the factors.

    Attributes:
      num_classes: Number of classes `K`, 1 or more.
      width: Channels of the towers.
      convolutions: Number of convolutions of each tower; the paper has 4.
      levels: Levels to read; None reads all that are given.
      distance: How a number becomes a distance in strides: one of `DISTANCES`.
      first_distance: Distance that is predicted before training, in strides; with
        "relu", 0 is torchvision's.
      level_factors: Whether the numbers of each level are multiplied by a parameter.
      use_bias: Whether the towers have biases in spite of a normalization, as in
        torchvision.
      norm: Normalization of the towers, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and predictions are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset(
        {"class_logits", "distances", "centerness_logits"}
    )

    num_classes: int
    width: int = 256
    convolutions: int = 4
    levels: tuple[int, ...] | None = None
    distance: str = "exp"
    first_distance: float = 4.0
    level_factors: bool = True
    use_bias: bool = False
    norm: str = "group"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        for name in ("num_classes", "width", "convolutions"):
            errors.at_least(name, getattr(self, name), 1, whole=True)
        errors.one_of("distance", self.distance, DISTANCES)
        # The logarithm of 0 is not finite.
        above = self.distance == "exp"
        errors.within("first_distance", self.first_distance, 0, 64, open_low=above)
        check_norm(self.norm, self.width)
        check_levels_given(self.levels, "the head")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, pyramid: Pyramid, *, train: bool
    ) -> dict[str, dict[int, jax.Array]]:
        """Returns the predictions of every level, in float32.

        Args:
          pyramid: Maps of any size, with equal numbers of channels.
          train: Whether batch statistics are used and the running averages updated.

        Returns:
          Level → `[B, h, w, …]`: `class_logits` with `num_classes` numbers, `distances`
          with the 4 to left, top, right and bottom, in pixels, and `centerness_logits`
          without a further dimension.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        maps = select_levels(pyramid, self.levels or tuple(pyramid), "the head")
        numerics = Numerics(self.dtype, self.axis_name, self.norm)
        tower = (self.width, self.convolutions, numerics, self.use_bias)
        for_class, for_box = (
            Tower(*tower, name=f"{n}_tower") for n in ("class", "box")
        )
        first = self.first_distance
        first = math.log(first) if self.distance == "exp" else first
        classes = output(self.num_classes, name="classes", bias=BACKGROUND)
        sides = output(4, name="distances", bias=first)
        centre = output(1, name="centerness")
        found: dict[str, dict[int, jax.Array]] = {name: {} for name in self.outputs}
        for level, x in maps.items():
            box = for_box(x, train=train)
            numbers = sides(box)
            if self.level_factors:
                ones = nn.initializers.ones_init()
                numbers *= self.param(f"factor{level}", ones, (), jnp.float32)
            distances = DISTANCES[self.distance](numbers) * 2**level
            found["class_logits"][level] = classes(for_class(x, train=train))
            found["distances"][level] = distances
            found["centerness_logits"][level] = centre(box)[..., 0]
        return found
