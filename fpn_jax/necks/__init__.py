"""Necks: pyramid → pyramid."""

from fpn_jax.necks.context import ASPPNeck, PPMNeck
from fpn_jax.necks.fpn import FPN
from fpn_jax.necks.identity import Identity
from fpn_jax.necks.image_pyramid import ImagePyramid
from fpn_jax.registry import registry

NECKS = {
    "fpn": FPN,
    "identity": Identity,
    "ppm": PPMNeck,
    "aspp": ASPPNeck,
    "image_pyramid": ImagePyramid,
}
"""Name → constructor."""

names, accepts, build = registry("neck", NECKS)
