"""No pyramid: the baseline that a feature pyramid is compared with."""

from flax import linen as nn

from fpn_jax.pyramid import Pyramid


class Identity(nn.Module):
    """Passes on the coarsest map alone, as a classifier without a pyramid reads it."""

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.
        """
        return {max(channels): channels[max(channels)]}

    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns a pyramid of one level.

        Args:
          pyramid: Any pyramid.
          train: Makes no difference here.
        """
        return {max(pyramid): pyramid[max(pyramid)]}
