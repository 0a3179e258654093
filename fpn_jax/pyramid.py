"""The pyramid: the one type that backbones, necks and heads pass to each other."""

import math
from collections.abc import Mapping

import jax

Pyramid = dict[int, jax.Array]
"""Level → feature map, NHWC; level `l` has stride `2**l`.

A map of an `H × W` image is `ceil(H / 2**l) × ceil(W / 2**l)` large, odd sizes
included, so a level's size follows from its number alone.
"""


def level_size(image_size: tuple[int, int], level: int) -> tuple[int, int]:
    """Returns `(ceil(H / 2**level), ceil(W / 2**level))`, in cells.

    Args:
      image_size: Height and width of the image, in pixels.
      level: Level of the pyramid, 0 or more.

    Example:
      >>> level_size((97, 224), 5)
      (4, 7)
    """
    height, width = image_size
    return math.ceil(height / 2**level), math.ceil(width / 2**level)


def is_aligned(offset: Mapping[int, tuple[float, float]]) -> bool:
    """Returns whether the first cell of every level is centred inside its own stride.

    Cell `(i, j)` of level `l` is then centred in the part of the image that the
    contract of `Pyramid` gives it, `2**l · [i, i + 1) × 2**l · [j, j + 1)`. A task that
    predicts positions needs this, or must use the offsets.

    Args:
      offset: Level → `(y, x)` in pixels, the result of a backbone's `cell_offset`.

    Example:
      >>> is_aligned({2: (0.5, 0.5), 3: (4.0, 4.0)}), is_aligned({2: (4.5, 4.5)})
      (True, False)
    """
    return all(
        0 <= place < 2**level for level, places in offset.items() for place in places
    )


def select_levels(pyramid: Pyramid, levels: tuple[int, ...], taker: str) -> Pyramid:
    """Returns the named levels of a pyramid, finest first.

    Args:
      pyramid: Any pyramid.
      levels: Levels to keep.
      taker: Who asks, for the error's sentence.

    Raises:
      ValueError: A level is missing; names it and the levels there are.
    """
    missing = [level for level in levels if level not in pyramid]
    if missing:
        raise ValueError(
            f"{taker} wants levels {tuple(levels)}, but the pyramid has only "
            f"{tuple(sorted(pyramid))}"
        )
    return {level: pyramid[level] for level in sorted(levels)}
