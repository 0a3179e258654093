"""Sources of records by name."""

from fpn_jax.data.sources.boxes import BoxesSource
from fpn_jax.data.sources.cat_points import CatPointsSource
from fpn_jax.data.sources.coco import CocoSource
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.data.sources.drawn_scenes import DrawnScenesSource
from fpn_jax.data.sources.folder import FolderSource
from fpn_jax.data.sources.masks import MasksSource
from fpn_jax.data.sources.pets import PetsSource
from fpn_jax.data.sources.tfds import TfdsSource

SOURCES = {
    "drawn": DrawnSource,
    "drawn_scenes": DrawnScenesSource,
    "folder": FolderSource,
    "tfds": TfdsSource,
    "pets": PetsSource,
    "masks": MasksSource,
    "boxes": BoxesSource,
    "coco": CocoSource,
    "cat_points": CatPointsSource,
}
"""Name of a source → its class.

A class takes by these names what the code gives it, each only where it needs it:
`split`; `root`, the folder of the data; `image_size` in pixels; `background`, the
colour behind transparent pixels; `encoded`, whether JPEGs may stay encoded. All other
arguments come from the config."""
