"""Families of backbones: name maps, and properties of their published weights."""

import dataclasses
from collections.abc import Mapping

from fpn_jax import backbones, errors
from fpn_jax.errors import InputError
from fpn_jax.pretrained import (
    alexnet,
    efficientnet,
    inception,
    mobilenet,
    resnet,
    vgg,
)
from fpn_jax.pretrained.convert import Pair

Pixels = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of pixels, by channel, on the scale 0 to 1."""

IMAGENET: Pixels = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Pixels = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

FREE = ("symmetric", "same")
EXACT = ("paper", "symmetric")


@dataclasses.dataclass(frozen=True)
class Family:
    """Backbones whose published weights have the same properties.

    Attributes:
      maps: Backbone → its name maps; `to_state_dict` uses the first.
      recipe: How the usual weights were trained, one of
        `fpn_jax.pretrained.preprocessing.RECIPES`.
      pixels: Mean and deviation of pixels for weights of torchvision and timm.
      tensorflow_pixels: Mean and deviation of pixels for weights that TensorFlow
        trained.
      paddings: Choices for the backbone's padding, first that of torchvision and timm.
      auxiliary: Prefixes of names that only training needs.
      several_recipes: Whether weights of several recipes, such as torchvision's and
        TensorFlow's, are passed on under the same names.
    """

    maps: Mapping[str, tuple[tuple[Pair, ...], ...]]
    recipe: str = "torchvision"
    pixels: Pixels = IMAGENET
    tensorflow_pixels: Pixels = HALF
    paddings: tuple[str, ...] = FREE
    auxiliary: tuple[str, ...] = ()
    several_recipes: bool = False


RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

FAMILIES = (
    Family({"alexnet": (alexnet.TORCHVISION,)}, paddings=EXACT),
    Family(
        {
            f"efficientnet_b{number}": (efficientnet.TORCHVISION, efficientnet.TIMM)
            for number in range(8)
        },
        # Only timm's tf_efficientnet_b* that were trained with AdvProp ("ap") use HALF.
        tensorflow_pixels=IMAGENET,
        several_recipes=True,
    ),
    Family(
        {
            "googlenet": (inception.TORCHVISION_V1,),
            "inception_v3": (inception.TORCHVISION_V3,),
        },
        # torchvision's `transform_input` turns ImageNet's normalization into this one.
        pixels=HALF,
        paddings=EXACT,
        auxiliary=inception.AUXILIARY,
    ),
    Family({"mobilenet_v1": (mobilenet.TIMM_V1,)}, recipe="timm", pixels=HALF),
    Family(
        {"mobilenet_v2": (mobilenet.TORCHVISION, mobilenet.TIMM)},
        several_recipes=True,
    ),
    Family({name: (resnet.TORCHVISION,) for name in RESNETS}),
    Family(
        {name: (vgg.TORCHVISION[name], vgg.TIMM[name]) for name in vgg.VARIANTS},
        paddings=EXACT,
    ),
)
"""Families with published weights; LeNet-5 and AlexNet with LRN have none."""


def family_of(name: str) -> Family:
    """Returns the family of a backbone.

    Args:
      name: One of `fpn_jax.backbones.names()`.

    Raises:
      InputError: The backbone is unknown or has no published weights.
    """
    if name not in backbones.names():
        raise errors.unknown("backbone", name, backbones.names())
    for family in FAMILIES:
        if name in family.maps:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.maps)
    raise InputError(
        f"backbone {name!r} has no published weights; these backbones have: {known}"
    )
