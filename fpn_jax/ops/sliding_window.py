"""Windows of a pyramid: what a classifier reads at every place of a larger image.

"OverFeat: Integrated Recognition, Localization and Detection using Convolutional
Networks" (arXiv 1312.6229): the maps of all windows of an image are parts of the maps
of the image, so they are computed once.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax.errors import InputError


def windows(
    pyramid: Mapping[int, jax.Array], cells: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, jax.Array], tuple[int, int]]:
    """Returns the windows of every level; they lie a cell of the coarsest one apart.

    Args:
      pyramid: Level → `[B, H, W, C]`.
      cells: Level → height and width of a window, in cells of that level.

    Returns:
      Level → `[B · n · m, h, w, C]`, and how many windows there are down and across.

    Raises:
      InputError: A map is smaller than its window.
    """
    coarsest = max(pyramid)
    places = []
    for axis in (0, 1):
        counts = [
            (x.shape[1 + axis] - cells[level][axis]) // 2 ** (coarsest - level) + 1
            for level, x in pyramid.items()
        ]
        places.append(min(counts))
    if min(places) < 1:
        have = [x.shape[1:3] for x in pyramid.values()]
        need = [cells[level] for level in pyramid]
        raise InputError(
            f"the maps have {have} cells, fewer than the window's {need}; give larger "
            "images"
        )
    found = {}
    for level, x in pyramid.items():
        step, (height, width) = 2 ** (coarsest - level), cells[level]
        rows = step * np.arange(places[0])[:, None] + np.arange(height)
        columns = step * np.arange(places[1])[:, None] + np.arange(width)
        parts = jnp.asarray(x)[:, rows[:, None, :, None], columns[None, :, None, :]]
        found[level] = jax.lax.collapse(parts, 0, 3)
    return found, (places[0], places[1])
