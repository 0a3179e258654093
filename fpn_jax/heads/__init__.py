"""Heads: pyramid → predictions."""

from fpn_jax.heads.flatten import FlattenClassifier
from fpn_jax.heads.mlp import MlpClassifier
from fpn_jax.heads.pool import PoolClassifier
from fpn_jax.heads.spatial_pyramid import SpatialPyramidClassifier
from fpn_jax.registry import registry

HEADS = {
    "flatten": FlattenClassifier,
    "pool": PoolClassifier,
    "spp": SpatialPyramidClassifier,
    "mlp": MlpClassifier,
}
"""Name → constructor."""

names, accepts, build = registry("head", HEADS)
