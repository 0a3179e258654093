"""Backbones: image → pyramid."""

import dataclasses
from functools import partial

from flax import linen as nn

from fpn_jax import errors
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG

BACKBONES = {
    "resnet18": partial(ResNet, block=BasicBlock, stage_sizes=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, block=BasicBlock, stage_sizes=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, block=Bottleneck, stage_sizes=(3, 4, 6, 3)),
    "resnet101": partial(ResNet, block=Bottleneck, stage_sizes=(3, 4, 23, 3)),
    "resnet152": partial(ResNet, block=Bottleneck, stage_sizes=(3, 8, 36, 3)),
    "vgg11": partial(VGG, stage_sizes=(1, 1, 2, 2, 2), batch_norm=False),
    "vgg13": partial(VGG, stage_sizes=(2, 2, 2, 2, 2), batch_norm=False),
    "vgg16": partial(VGG, stage_sizes=(2, 2, 3, 3, 3), batch_norm=False),
    "vgg19": partial(VGG, stage_sizes=(2, 2, 4, 4, 4), batch_norm=False),
    "vgg11_bn": partial(VGG, stage_sizes=(1, 1, 2, 2, 2), batch_norm=True),
    "vgg13_bn": partial(VGG, stage_sizes=(2, 2, 2, 2, 2), batch_norm=True),
    "vgg16_bn": partial(VGG, stage_sizes=(2, 2, 3, 3, 3), batch_norm=True),
    "vgg19_bn": partial(VGG, stage_sizes=(2, 2, 4, 4, 4), batch_norm=True),
}
"""Name → constructor; what a name fixes is no argument of `build`."""


def names() -> tuple[str, ...]:
    """Returns the names that `build` understands."""
    return tuple(BACKBONES)


def accepts(name: str) -> frozenset[str]:
    """Returns the names of the arguments that `build(name, ...)` takes.

    Raises:
      InputError: The name is unknown.
    """
    if name not in BACKBONES:
        raise errors.unknown("backbone", name, BACKBONES)
    constructor = BACKBONES[name]
    fields = {field.name for field in dataclasses.fields(constructor.func)}
    return frozenset(fields - {"parent", "name"} - constructor.keywords.keys())


def build(name: str, /, **arguments: object) -> nn.Module:
    """Returns the backbone of a name.

    Args:
      name: One of `names()`.
      **arguments: Attributes of its class, from `accepts(name)`.

    Raises:
      InputError: The name, an argument or an argument's value is not understood.
    """
    choices = accepts(name)
    for argument in arguments:
        if argument not in choices:
            raise errors.unknown(
                f"argument of backbone {name!r}", argument, sorted(choices)
            )
    return BACKBONES[name](**arguments)
