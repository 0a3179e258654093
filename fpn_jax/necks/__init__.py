"""Necks: pyramid → pyramid."""

from flax import linen as nn

from fpn_jax.necks.context import ASPPNeck, PPMNeck
from fpn_jax.necks.deeplab import DeepLab
from fpn_jax.necks.fpn import FPN
from fpn_jax.necks.identity import Identity
from fpn_jax.necks.image_pyramid import ImagePyramid
from fpn_jax.necks.unet import UNet
from fpn_jax.registry import Registry

NECKS = {
    "fpn": FPN,
    "identity": Identity,
    "ppm": PPMNeck,
    "aspp": ASPPNeck,
    "deeplab": DeepLab,
    "unet": UNet,
    "image_pyramid": ImagePyramid,
}
"""Name → constructor."""

REGISTRY = Registry(
    "neck", NECKS, base=nn.Module, members=("output_channels", "num_scales")
)
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
