"""The base of backbones that derive the positions of their cells from their windows."""

import abc
from collections.abc import Mapping, Sequence

from flax import linen as nn

from fpn_jax.ops.receptive_field import SlidingWindow, cell_offset


class WindowedBackbone(nn.Module, abc.ABC):
    """A backbone whose cell positions follow from the windows of its layers.

    A subclass has the attribute `levels` and the property `windows`.
    """

    @property
    @abc.abstractmethod
    def windows(self) -> Mapping[int, Sequence[SlidingWindow]]:
        """Level → windows between the level before and this one that move centres."""

    def cell_offset(
        self, image_size: tuple[int, int]
    ) -> dict[int, tuple[float, float]]:
        """Returns the centre of the receptive field of the first cell of every level.

        Cell `(i, j)` of level `l` is centred `2**l · (i, j)` further. In a block of
        branches, the centre is that of its main path.

        Args:
          image_size: Height and width of the image, in pixels.

        Returns:
          Level → `(y, x)`, in pixels; pixel `i` covers `[i, i + 1)`.
        """
        offsets = cell_offset(image_size, self.windows)
        return {level: offsets[level] for level in sorted(self.levels)}
