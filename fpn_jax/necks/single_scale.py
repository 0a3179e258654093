"""The base of the necks that read one pyramid."""

from typing import ClassVar

from flax import linen as nn


class SingleScaleNeck(nn.Module):
    """A neck over the pyramid of the image alone, without smaller copies of it."""

    num_scales: ClassVar[int] = 1
    """Number of pyramids that the neck takes."""
