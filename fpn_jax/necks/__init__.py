"""Necks: pyramid → pyramid."""

from fpn_jax.necks.fpn import FPN
from fpn_jax.necks.identity import Identity
from fpn_jax.registry import registry

NECKS = {"fpn": FPN, "identity": Identity}
"""Name → constructor."""

names, accepts, build = registry("neck", NECKS)
