"""Heads: pyramid → predictions."""

from fpn_jax.heads.classifier import FlattenClassifier, PoolClassifier
from fpn_jax.registry import registry

HEADS = {"flatten": FlattenClassifier, "pool": PoolClassifier}
"""Name → constructor."""

names, accepts, build = registry("head", HEADS)
