"""The head of FCOS: shapes, first values, and what its levels share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import heads
from fpn_jax.errors import InputError
from fpn_jax.pyramid import level_size

LEVELS = (3, 4, 5)


def head(**changes):
    return heads.build(
        {"name": "fcos", "width": 32, "convolutions": 1} | changes, num_classes=3
    )


def maps(size=(40, 56), seed=0, count=2):
    rng = np.random.default_rng(seed)
    return {
        level: rng.normal(size=(count, *level_size(size, level), 32)).astype(np.float32)
        for level in LEVELS
    }


def run(made, pyramid):
    apply = functools.partial(made.init_with_output, train=False)
    return jax.jit(apply)(jax.random.key(0), pyramid)


@pytest.mark.parametrize("size", [(33, 97), (64, 64), (97, 40)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_cell_of_every_level_predicts_in_float32(size, dtype):
    made = head(dtype=dtype)
    init = functools.partial(made.init_with_output, train=False)
    found, _ = jax.eval_shape(init, jax.random.key(0), maps(size))
    ends = {"class_logits": (3,), "distances": (4,), "centerness_logits": ()}
    assert found.keys() == ends.keys() == made.outputs
    for name, end in ends.items():
        for level in LEVELS:
            shape = (2, *level_size(size, level), *end)
            assert found[name][level].shape == shape
            assert found[name][level].dtype == jnp.float32


def test_first_predictions_are_background_and_four_strides():
    found, variables = run(head(), maps())
    probability = jax.nn.sigmoid(found["class_logits"][3])
    np.testing.assert_allclose(probability, 0.01, atol=0.004)
    for level in LEVELS:
        np.testing.assert_allclose(found["distances"][level] / 2**level, 4, rtol=0.5)
    assert {f"factor{level}" for level in LEVELS} <= set(variables["params"])


def test_levels_share_their_parameters():
    pyramid = maps()
    pyramid[4] = pyramid[3]
    found, _ = run(head(level_factors=False, distance="relu"), pyramid)
    np.testing.assert_array_equal(found["class_logits"][3], found["class_logits"][4])
    np.testing.assert_allclose(
        2 * found["distances"][3], found["distances"][4], rtol=1e-6
    )
    assert (np.asarray(found["distances"][3]) >= 0).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"distance": "tanh"}, "distance 'tanh' is unknown"),
        ({"first_distance": 0.0}, r"first_distance is 0.0; it must be in \(0, 64\]"),
        ({"width": 20}, "norm 'group' needs a multiple of 32 channels"),
        ({"convolutions": 0}, "convolutions is 0"),
        ({"levels": ()}, "levels are"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        head(**changes)
