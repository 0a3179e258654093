"""The featurized image pyramid, a baseline for feature pyramids."""

from flax import linen as nn

from fpn_jax import errors
from fpn_jax.pyramid import Pyramid, select_levels


class ImagePyramid(nn.Module):
    """The same level of the backbone for the image and for smaller copies of it.

    The featurized image pyramid, figure 1a of Lin et al., arXiv 1612.03144. The model
    runs its backbone over `num_scales` images, each half the size of the one before
    (`fpn_jax.imaging.pyramids`). Level `l` of copy `s` has stride `2**(l + s)` in the
    image, so it is level `l + s` of the result.

    Attributes:
      num_scales: Number of sizes of the image, including its own.
      level: Level to use of every copy; None uses the coarsest that is given.
    """

    num_scales: int = 3
    level: int | None = None

    def __post_init__(self):
        errors.at_least("num_scales", self.num_scales, 1, whole=True)
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid of one copy.

        Raises:
          InputError: `level` is not given.
        """
        level = max(channels) if self.level is None else self.level
        if level not in channels:
            raise errors.InputError(
                f"the image pyramid needs level {level}, but the backbone has only "
                f"{tuple(sorted(channels))}"
            )
        return {level + scale: channels[level] for scale in range(self.num_scales)}

    def __call__(self, *pyramids: Pyramid, train: bool) -> Pyramid:
        """Returns `num_scales` levels with the same number of channels.

        Args:
          *pyramids: Pyramids of the backbone for every copy, largest first.
          train: Makes no difference here.

        Raises:
          ValueError: The number of pyramids is not `num_scales`, or `level` is missing.
        """
        if len(pyramids) != self.num_scales:
            raise ValueError(
                f"{len(pyramids)} pyramids are given; num_scales is {self.num_scales}"
            )
        level = max(pyramids[0]) if self.level is None else self.level
        return {
            level + scale: select_levels(pyramid, (level,), "the image pyramid")[level]
            for scale, pyramid in enumerate(pyramids)
        }
