"""How answers are shown: table rows, drawings and sections of a report."""

from fpn_jax.views.base import View
from fpn_jax.views.box import BoxView
from fpn_jax.views.boxes import BoxesView
from fpn_jax.views.class_map import ClassMapView
from fpn_jax.views.classes import ClassesView
from fpn_jax.views.points import PointsView

VIEWS: dict[str, View] = {
    "classes": ClassesView(),
    "class_map": ClassMapView(),
    "box": BoxView(),
    "boxes": BoxesView(),
    "points": PointsView(),
}
"""Kind of answer → its view; a task names its kind."""
