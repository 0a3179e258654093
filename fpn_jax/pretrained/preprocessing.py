"""Preprocessing of published weights: pixels, padding, and constants."""

import dataclasses
from typing import NamedTuple

from fpn_jax import backbones, errors
from fpn_jax.errors import InputError
from fpn_jax.pretrained.families import HALF, Pixels, family_of
from fpn_jax.pretrained.read import read_metadata

METADATA_KEY = "preprocessing"
"""Key of the recipe in the metadata of a `.safetensors` file."""


class Recipe(NamedTuple):
    """How a collection of weights was trained; None takes a default of the backbone.

    Attributes:
      pixels: Mean and standard deviation of the pixels, or None for the family's.
      padding: The backbone's argument, or None for the family's first.
      epsilon: Epsilon of batch normalization, or None for the backbone's default.
    """

    pixels: Pixels | None = None
    padding: str | None = None
    epsilon: float | None = None


RECIPES = {
    "torchvision": Recipe(),
    "timm": Recipe(epsilon=1e-5),
    "inception": Recipe(HALF),
    "tensorflow": Recipe(padding="same", epsilon=1e-3),
}
"""Name → recipe."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The settings with which weights were trained.

    Attributes:
      mean: Mean of the pixels, by channel, on the scale 0 to 1.
      std: Standard deviation of the pixels, by channel, on the scale 0 to 1.
      image_size: Height and width of the images, in pixels.
      padding: The backbone's argument, or None where the backbone has none.
      epsilon: The backbone's argument, epsilon of batch normalization, or None where
        the backbone has none.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    padding: str | None
    epsilon: float | None


def preprocessing(name: str, recipe: str = "", path: str = "") -> Preprocessing:
    """Returns the settings with which the weights of a backbone were trained.

    Args:
      name: The backbone.
      recipe: One of `RECIPES`; empty takes the recipe that the file names, or else the
        usual one of the backbone's family. With a file, a family with
        `several_recipes` has no usual one.
      path: The file of weights; the metadata of a `.safetensors` may name its recipe.

    Raises:
      InputError: The backbone or the recipe is unknown or must be given, the backbone
        lacks the recipe's padding, or the file cannot be read.
    """
    backbone, accepted = backbones.build(name), backbones.accepts(name)
    family = family_of(name)
    if not recipe and path:
        recipe = read_metadata(path).get(METADATA_KEY, "")
        if not recipe and family.several_recipes:
            raise InputError(
                f"{path} does not say how its network was trained, and the wrong "
                "choice costs accuracy: set --config.pretrained.recipe to torchvision, "
                "timm or tensorflow, whose network it is"
            )
    recipe = recipe or family.recipe
    if recipe not in RECIPES:
        raise errors.unknown("recipe", recipe, RECIPES)
    pixels, padding, epsilon = RECIPES[recipe]
    of_family = family.tensorflow_pixels if recipe == "tensorflow" else family.pixels
    mean, std = pixels or of_family
    if padding and padding not in family.paddings:
        raise InputError(
            f"recipe {recipe!r} needs padding {padding!r}, which backbone {name!r} "
            f"does not have; it has {', '.join(family.paddings)}"
        )
    return Preprocessing(
        mean=mean,
        std=std,
        image_size=backbone.native_size,
        padding=(padding or family.paddings[0]) if "padding" in accepted else None,
        epsilon=(epsilon or backbone.epsilon) if "epsilon" in accepted else None,
    )
