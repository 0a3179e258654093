"""Heads: pyramid → predictions."""

from flax import linen as nn

from fpn_jax.heads.class_map import AuxiliaryClassMap, ClassMap
from fpn_jax.heads.dense import DenseAnchors
from fpn_jax.heads.fcos import FCOS
from fpn_jax.heads.flatten import FlattenClassifier
from fpn_jax.heads.grid import Grid
from fpn_jax.heads.landmarks import LandmarkHeatMaps, LandmarkPoints
from fpn_jax.heads.localizer import Localizer
from fpn_jax.heads.mlp import MlpClassifier
from fpn_jax.heads.pool import PoolClassifier
from fpn_jax.heads.semantic_fpn import SemanticFPN
from fpn_jax.heads.spatial_pyramid import SpatialPyramidClassifier
from fpn_jax.registry import Registry

HEADS = {
    "flatten": FlattenClassifier,
    "pool": PoolClassifier,
    "spp": SpatialPyramidClassifier,
    "mlp": MlpClassifier,
    "class_map": ClassMap,
    "auxiliary_class_map": AuxiliaryClassMap,
    "semantic_fpn": SemanticFPN,
    "localizer": Localizer,
    "landmark_heat_maps": LandmarkHeatMaps,
    "landmark_points": LandmarkPoints,
    "fcos": FCOS,
    "dense": DenseAnchors,
    "grid": Grid,
}
"""Name → constructor."""

REGISTRY = Registry("head", HEADS, base=nn.Module, members=("outputs",))
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
