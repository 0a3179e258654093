"""The pyramid: the one type that backbones, necks and heads pass to each other."""

import math

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
