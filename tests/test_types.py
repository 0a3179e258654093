"""The type of a value against an annotation."""

import pytest

from fpn_jax import types
from fpn_jax.errors import InputError
from fpn_jax.registry import Spec


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (2, int),
        (2, float),
        (2.5, float),
        (None, int | None),
        (True, bool),
        ("a", str),
        ((1, 2), tuple[int, int]),
        ([0.5, 1], tuple[float, float]),
        ((), tuple[int, ...]),
        (["a"], str | tuple[str, ...]),
        ({"name": "x"}, Spec),
        (object(), dict[str, int]),
        (3, float | tuple[float, ...] | None),
    ],
)
def test_a_value_of_the_type_passes(value, annotation):
    types.check("x", value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "text"),
    [
        ("2", int, "x is '2'; it must be a whole number"),
        (2.0, int, "x is 2.0; it must be a whole number"),
        (True, int, "x is True; it must be a whole number"),
        (None, float, "x is None; it must be a number"),
        (1, bool, "x is 1; it must be True or False"),
        (5, str, "x is 5; it must be text"),
        (5, tuple[int, ...], "x is 5; it must be whole numbers in a tuple"),
        ("23", tuple[int, ...], "x is '23'; it must be whole numbers in a tuple"),
        ((1,), tuple[float, float], "x is (1,); it must be 2 numbers in a tuple"),
        (("a", 3), str | tuple[str, ...], "it must be text, or texts in a tuple"),
        ("x", int | None, "x is 'x'; it must be a whole number, or None"),
    ],
)
def test_a_value_of_another_type_is_refused(value, annotation, text):
    with pytest.raises(InputError) as error:
        types.check("x", value, annotation)
    assert text in str(error.value)
