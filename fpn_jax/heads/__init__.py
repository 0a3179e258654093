"""Heads: pyramid → predictions."""

from flax import linen as nn

from fpn_jax.heads.flatten import FlattenClassifier
from fpn_jax.heads.mlp import MlpClassifier
from fpn_jax.heads.pool import PoolClassifier
from fpn_jax.heads.spatial_pyramid import SpatialPyramidClassifier
from fpn_jax.registry import Registry

HEADS = {
    "flatten": FlattenClassifier,
    "pool": PoolClassifier,
    "spp": SpatialPyramidClassifier,
    "mlp": MlpClassifier,
}
"""Name → constructor."""

REGISTRY = Registry("head", HEADS, base=nn.Module, members=("outputs",))
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
