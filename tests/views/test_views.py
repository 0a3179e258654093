"""The interface of all views, and the imports of the package."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fpn_jax.views import VIEWS, base

MEMBERS = {
    name: value
    for name, value in vars(base.View).items()
    if inspect.isfunction(value) and not name.startswith("_")
}
ROWS = {"label": np.array([0, 1])}


def evaluated(**changes):
    made = {
        "rows": ROWS,
        "ids": ["a", "b"],
        "metrics": {},
        "split": "test",
        "load_image": lambda row: np.zeros((4, 4, 3), np.uint8),
        "explain": None,
    }
    return base.Evaluated(**(made | changes))


def test_the_view_protocol_has_members():
    names = "columns rows draw files results headline sections mistakes"
    assert set(names.split()) == set(MEMBERS)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("kind", VIEWS)
def test_every_view_has_every_member_of_the_protocol(kind, member):
    ours = inspect.signature(getattr(type(VIEWS[kind]), member))
    theirs = inspect.signature(MEMBERS[member])
    assert list(ours.parameters) == list(theirs.parameters)
    assert ours.return_annotation == theirs.return_annotation


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_is_a_frozen_dataclass(kind):
    assert VIEWS[kind].__dataclass_params__.frozen


def test_import_loads_neither_matplotlib_nor_jax():
    code = (
        "import sys, fpn_jax.views; "
        "loaded = {'matplotlib', 'jax', 'flax'} & set(sys.modules); "
        "sys.exit(bool(loaded))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_evaluated_refuses_rows_of_unequal_length():
    with pytest.raises(ValueError, match="split 'test' has no record"):
        evaluated(ids=[])
    with pytest.raises(ValueError, match="1 ids for 2 rows of 'label'"):
        evaluated(ids=["a"])


def test_any_object_with_the_attributes_can_be_info():
    info = SimpleNamespace(classes=("cat",), landmark_names=())
    assert VIEWS["classes"].columns(info) == ("class", "probability_cat")
