"""The pyramid, and the protocols of the parts of a model that make and read it."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax

from fpn_jax.errors import InputError

Pyramid = dict[int, jax.Array]
"""Level → feature map, NHWC; level `l` has stride `2**l`.

A map of an `H × W` image has `ceil(H / 2**l) × ceil(W / 2**l)` cells, odd sizes
included, so the size of a level follows from its number alone.
"""


@runtime_checkable
class Backbone(Protocol):
    """Image → pyramid.

    Attributes:
      levels: Levels that are returned.
      paddings: Choices for the argument `padding`.
      native_size: Height and width of the paper's images, in pixels.
      paper_head: Spec of the head that the paper's classifier is.
    """

    levels: tuple[int, ...]
    paddings: ClassVar[tuple[str, ...]]
    native_size: int
    paper_head: Mapping[str, Any]

    @property
    def channels(self) -> dict[int, int]:
        """Level → number of channels, finest level first."""

    def cell_offset(
        self, image_size: tuple[int, int]
    ) -> dict[int, tuple[float, float]]:
        """Returns level → centre of the first cell, `(y, x)` in pixels.

        Cell `(i, j)` of level `l` is centred `2**l · (i, j)` further; see `is_aligned`.

        Args:
          image_size: Height and width of the image, in pixels.
        """

    def __call__(self, x: jax.Array, *, train: bool) -> Pyramid:
        """Returns the maps of `levels` for normalized images, `[B, H, W, 3]`."""


@runtime_checkable
class Neck(Protocol):
    """Pyramid → pyramid.

    Attributes:
      num_scales: Number of pyramids that the neck takes: one of the image, and one of
        each smaller copy of it. `fpn_jax.necks.single_scale` gives the usual 1.
    """

    num_scales: int

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: The neck cannot use such a pyramid.
        """

    def __call__(self, *pyramids: Pyramid, train: bool) -> Pyramid:
        """Returns a pyramid of `output_channels`."""


@runtime_checkable
class Head(Protocol):
    """Pyramid → predictions.

    Attributes:
      outputs: Keys of the predictions.
    """

    outputs: ClassVar[frozenset[str]]

    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, Any]:
        """Returns predictions by name; those of every level are dicts by level."""


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
        0 <= pixel < 2**level for level, pixels in offset.items() for pixel in pixels
    )


def check_levels_given(levels: tuple[int, ...] | None, taker: str) -> None:
    """Refuses an empty choice of levels.

    Args:
      levels: Levels that a part uses, or None for its default.
      taker: The part, for the error message.

    Raises:
      InputError: `levels` is empty.
    """
    if levels is not None and not levels:
        raise InputError(f"levels are (); {taker} needs at least one, or None")


def select_levels(pyramid: Pyramid, levels: tuple[int, ...], taker: str) -> Pyramid:
    """Returns the named levels of a pyramid, finest first.

    Args:
      pyramid: Any pyramid.
      levels: Levels to keep.
      taker: The part that needs them, for the error message.

    Raises:
      ValueError: A level is missing; the message names the levels that exist.
    """
    missing = [level for level in levels if level not in pyramid]
    if missing:
        raise ValueError(
            f"{taker} needs levels {tuple(levels)}, but the pyramid has only "
            f"{tuple(sorted(pyramid))}"
        )
    return {level: pyramid[level] for level in sorted(levels)}
