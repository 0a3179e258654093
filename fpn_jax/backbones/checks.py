"""Checks of arguments that several backbones share."""

from collections.abc import Sequence

import jax

from fpn_jax import errors


def check_levels(network: str, levels: Sequence[int], choices: Sequence[int]) -> None:
    """Refuses levels that a network does not have.

    Args:
      network: Name of the network, for the error message.
      levels: Levels to return.
      choices: Every level of the network.

    Raises:
      InputError: No level is given, or a level does not exist or is given twice.
    """
    if not levels or not set(levels) <= set(choices):
        raise errors.InputError(
            f"levels are {tuple(levels)}; {network} has levels {choices}, of which "
            "one or more must be given"
        )
    if len(set(levels)) < len(levels):
        raise errors.InputError(
            f"levels are {tuple(levels)}; give each level of {network} once"
        )


def check_unpadded(network: str, images: jax.Array, level: int, least: int) -> None:
    """Refuses images that are too small for a level where maps are not padded.

    Args:
      network: Name of the network, for the error message.
      images: `[B, H, W, C]`.
      level: The coarsest level that is computed.
      least: Smallest height and width for this level, in pixels.

    Raises:
      InputError: The short side is below `least`.
    """
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise errors.InputError(
            f"image size {height} × {width} is too small for level {level} of "
            f"{network} with padding 'paper'; its short side must be at least {least} "
            "pixels"
        )
