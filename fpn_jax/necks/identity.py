"""The identity: the baseline without a feature pyramid."""

from fpn_jax.errors import InputError
from fpn_jax.necks.single_scale import SingleScaleNeck
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels


class Identity(SingleScaleNeck):
    """Returns levels of the backbone unchanged, by default the coarsest alone.

    A head on the coarsest level alone is a classifier without a pyramid.

    Attributes:
      levels: Levels to return; None returns the coarsest that is given.
    """

    levels: tuple[int, ...] | None = None

    def __post_init__(self):
        check_levels_given(self.levels, "the neck")
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: A level of `levels` is not given.
        """
        levels = self.levels or (max(channels),)
        if not set(levels) <= set(channels):
            raise InputError(
                f"the neck needs levels {tuple(levels)}, but the backbone has only "
                f"{tuple(sorted(channels))}"
            )
        return {level: channels[level] for level in sorted(levels)}

    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns the maps of `levels`.

        Args:
          pyramid: Any pyramid.
          train: Makes no difference here.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        return select_levels(pyramid, self.levels or (max(pyramid),), "the neck")
