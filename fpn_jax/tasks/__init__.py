"""Tasks: each defines losses, metrics, and how to decode predictions."""

from fpn_jax.registry import Registry
from fpn_jax.tasks.base import Task
from fpn_jax.tasks.classification import Classification
from fpn_jax.tasks.fcos import FCOSDetection
from fpn_jax.tasks.grid import GridDetection
from fpn_jax.tasks.landmarks import LandmarkHeatMaps, LandmarkPoints
from fpn_jax.tasks.localization import Localization
from fpn_jax.tasks.retinanet import RetinaNetDetection
from fpn_jax.tasks.segmentation import Segmentation

TASKS = {
    "classification": Classification,
    "segmentation": Segmentation,
    "localization": Localization,
    "fcos": FCOSDetection,
    "retinanet": RetinaNetDetection,
    "grid": GridDetection,
    "landmark_heat_maps": LandmarkHeatMaps,
    "landmark_points": LandmarkPoints,
}
"""Name → constructor."""

REGISTRY = Registry("task", TASKS, base=Task)
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build
