"""What backbones refuse, in one wording."""

from collections.abc import Sequence

import jax

from fpn_jax import errors


def check_levels(network: str, levels: Sequence[int], choices: Sequence[int]) -> None:
    """Refuses levels that a network does not have.

    Args:
      network: Who is asked, for the error's sentence.
      levels: Levels to return.
      choices: Every level that there is.

    Raises:
      InputError: There are none, or one does not exist or is named twice.
    """
    if not levels or not set(levels) <= set(choices):
        raise errors.InputError(
            f"levels are {tuple(levels)}; {network} has one or more of {choices}"
        )
    if len(set(levels)) < len(levels):
        raise errors.InputError(
            f"levels are {tuple(levels)}; {network} wants each of them once"
        )


def check_unpadded(network: str, images: jax.Array, level: int, least: int) -> None:
    """Refuses images that fill no cell of a level where maps are not padded.

    Args:
      network: Who is asked, for the error's sentence.
      images: `[B, H, W, C]`.
      level: The coarsest level that is computed.
      least: Height and width that it needs, in pixels.

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
