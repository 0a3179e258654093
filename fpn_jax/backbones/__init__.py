"""Backbones: image → pyramid."""

from functools import partial

from flax import linen as nn

from fpn_jax.backbones import efficientnet
from fpn_jax.backbones.alexnet import AlexNet
from fpn_jax.backbones.efficientnet import EfficientNet
from fpn_jax.backbones.googlenet import GoogLeNet
from fpn_jax.backbones.inception_v3 import InceptionV3
from fpn_jax.backbones.lenet import LeNet5
from fpn_jax.backbones.mobilenet_v1 import MobileNetV1
from fpn_jax.backbones.mobilenet_v2 import MobileNetV2
from fpn_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fpn_jax.backbones.unet import UNetEncoder
from fpn_jax.backbones.vgg import VGG
from fpn_jax.registry import Registry

BACKBONES = {
    "alexnet": partial(AlexNet, local_response_norm=False),
    "alexnet_lrn": partial(AlexNet, local_response_norm=True),
    "googlenet": GoogLeNet,
    "inception_v3": InceptionV3,
    "lenet5": LeNet5,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "efficientnet_b0": partial(EfficientNet, scaling=efficientnet.B0),
    "efficientnet_b1": partial(EfficientNet, scaling=efficientnet.B1),
    "efficientnet_b2": partial(EfficientNet, scaling=efficientnet.B2),
    "efficientnet_b3": partial(EfficientNet, scaling=efficientnet.B3),
    "efficientnet_b4": partial(EfficientNet, scaling=efficientnet.B4),
    "efficientnet_b5": partial(EfficientNet, scaling=efficientnet.B5),
    "efficientnet_b6": partial(EfficientNet, scaling=efficientnet.B6),
    "efficientnet_b7": partial(EfficientNet, scaling=efficientnet.B7),
    "resnet18": partial(ResNet, block=BasicBlock, stage_sizes=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, block=BasicBlock, stage_sizes=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, block=Bottleneck, stage_sizes=(3, 4, 6, 3)),
    "resnet101": partial(ResNet, block=Bottleneck, stage_sizes=(3, 4, 23, 3)),
    "resnet152": partial(ResNet, block=Bottleneck, stage_sizes=(3, 8, 36, 3)),
    "unet": UNetEncoder,
    "vgg11": partial(VGG, stage_sizes=(1, 1, 2, 2, 2), batch_norm=False),
    "vgg13": partial(VGG, stage_sizes=(2, 2, 2, 2, 2), batch_norm=False),
    "vgg16": partial(VGG, stage_sizes=(2, 2, 3, 3, 3), batch_norm=False),
    "vgg19": partial(VGG, stage_sizes=(2, 2, 4, 4, 4), batch_norm=False),
    "vgg11_bn": partial(VGG, stage_sizes=(1, 1, 2, 2, 2), batch_norm=True),
    "vgg13_bn": partial(VGG, stage_sizes=(2, 2, 2, 2, 2), batch_norm=True),
    "vgg16_bn": partial(VGG, stage_sizes=(2, 2, 3, 3, 3), batch_norm=True),
    "vgg19_bn": partial(VGG, stage_sizes=(2, 2, 4, 4, 4), batch_norm=True),
}
"""Name → constructor; arguments that a name fixes cannot be given to `build`."""

REGISTRY = Registry(
    "backbone",
    BACKBONES,
    base=nn.Module,
    members=("channels", "native_size", "paddings", "paper_head", "cell_offset"),
)
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
