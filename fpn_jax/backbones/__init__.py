"""Backbones: image → pyramid."""

from functools import partial

from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.vgg import VGG
from fpn_jax.registry import registry

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

names, accepts, build = registry("backbone", BACKBONES)
