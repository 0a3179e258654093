"""How answers are shown: table rows, drawings and sections of a report."""

from fpn_jax.views.base import View
from fpn_jax.views.classes import ClassesView

VIEWS: dict[str, View] = {"classes": ClassesView()}
"""Kind of answer → its view; a task names its kind."""
