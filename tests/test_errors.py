"""The checks in `errors`: accepted values, and the text of errors."""

import math

import numpy as np
import pytest

from fpn_jax import errors
from fpn_jax.errors import InputError


@pytest.mark.parametrize("value", [1, 7, 1.5, np.int64(1), np.float32(2), math.inf])
def test_at_least_accepts(value):
    assert errors.at_least("width", value, 1) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.999, "0.999"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        ("2", "'2'"),
        (None, "None"),
        (True, "True"),
        (2 + 0j, "(2+0j)"),
        ((2,), "(2,)"),
    ],
)
def test_at_least_refuses(value, shown):
    with pytest.raises(InputError) as caught:
        errors.at_least("width", value, 1)
    assert str(caught.value) == f"width is {shown}; it must be at least 1"


@pytest.mark.parametrize("value", [2, np.int32(2), 10**30])
def test_at_least_whole_accepts(value):
    assert errors.at_least("steps", value, 2, whole=True) is None


@pytest.mark.parametrize("value", [1, 2.0, 2.5, math.nan, math.inf, True, "2"])
def test_at_least_whole_refuses(value):
    message = f"steps is {value!r}; it must be a whole number of at least 2"
    with pytest.raises(InputError) as caught:
        errors.at_least("steps", value, 2, whole=True)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ends", "inside", "outside", "interval"),
    [
        ({}, (0, 0.5, 1), (-1, 1.01), "in [0, 1]"),
        ({"open_high": True}, (0, 0.999), (1, 2), "in [0, 1)"),
        ({"open_low": True}, (0.001, 1), (0, -1), "in (0, 1]"),
        ({"open_low": True, "open_high": True}, (0.5,), (0, 1), "in (0, 1)"),
    ],
)
def test_within_checks_both_bounds(ends, inside, outside, interval):
    for value in inside:
        assert errors.within("share", value, 0, 1, **ends) is None
    for value in (*outside, math.nan, math.inf, "0.5", None, True):
        with pytest.raises(InputError) as caught:
            errors.within("share", value, 0, 1, **ends)
        assert str(caught.value) == f"share is {value!r}; it must be {interval}"


@pytest.mark.parametrize(
    ("ends", "inside", "outside", "bound"),
    [
        ({}, (0, 1, math.inf), (-1e-9,), "at least 0"),
        ({"open_low": True}, (1e-9, math.inf), (0,), "above 0"),
        ({"open_high": True}, (0, 1e30), (-1, math.inf), "at least 0 and finite"),
        (
            {"open_low": True, "open_high": True},
            (1e-9, 1e30),
            (0, math.inf),
            "above 0 and finite",
        ),
    ],
)
def test_within_without_an_upper_bound(ends, inside, outside, bound):
    for value in inside:
        assert errors.within("rate", value, 0, math.inf, **ends) is None
    for value in (*outside, math.nan, "1"):
        with pytest.raises(InputError) as caught:
            errors.within("rate", value, 0, math.inf, **ends)
        assert str(caught.value) == f"rate is {value!r}; it must be {bound}"


def test_one_of():
    table = {"max": 1, "median": 2}
    assert errors.one_of("pool", "max", table) is None
    assert errors.one_of("stride", 8, (8, 16)) is None
    with pytest.raises(InputError) as caught:
        errors.one_of("pool", "mad", table)
    assert str(caught.value) == (
        "pool 'mad' is unknown; did you mean 'max'? Choose one of max, median"
    )
    with pytest.raises(InputError) as caught:
        errors.one_of("stride", 1, (8, 16))
    assert str(caught.value) == "stride 1 is unknown; choose one of 8, 16"


def test_one_of_refuses_unhashable_values():
    with pytest.raises(InputError, match=r"pool \['max'\] is unknown"):
        errors.one_of("pool", ["max"], {"max": 1})
