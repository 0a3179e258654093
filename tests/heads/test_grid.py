"""The head of YOLO: shapes, the level that it reads, and which value is whose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import heads
from fpn_jax.errors import InputError
from fpn_jax.pyramid import level_size

ENDS = {"grid_boxes": (4,), "object_logits": (), "class_logits": (3,)}


def head(**changes):
    spec = {"name": "grid", "width": 32, "norm": "group", "convolutions": 1}
    return heads.build(spec | changes, num_classes=3, num_anchors=2)


def maps(size=(40, 56), seed=0):
    rng = np.random.default_rng(seed)
    return {
        level: rng.normal(size=(2, *level_size(size, level), 8)).astype(np.float32)
        for level in (3, 4, 5)
    }


def predictions(made, pyramid):
    init = functools.partial(made.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), pyramid)[0]


@pytest.mark.parametrize("size", [(33, 97), (64, 64), (97, 40)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("level", [None, 3])
def test_every_anchor_of_every_cell_predicts_in_float32(size, dtype, level):
    made = head(dtype=dtype, level=level)
    found = predictions(made, maps(size))
    assert found.keys() == ENDS.keys() == made.outputs
    for name, end in ENDS.items():
        # Without a level, the coarsest map is read.
        ((read, value),) = found[name].items()
        assert read == (level or 5)
        assert value.shape == (2, *level_size(size, read), 2, *end)
        assert value.dtype == jnp.float32


def test_the_channels_of_an_anchor_are_neighbours():
    made, pyramid = head(), maps()
    init = functools.partial(made.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), pyramid)
    bias = jnp.arange(8.0)
    ends = variables["params"]["grid_boxes"]
    zero = {"kernel": jnp.zeros_like(ends["kernel"]), "bias": bias}
    params = variables["params"] | {"grid_boxes": zero}
    found = made.apply({"params": params}, pyramid, train=False)["grid_boxes"][5]
    assert found[0, 0, 0].tolist() == bias.reshape(2, 4).tolist()


def test_an_absent_level_is_named():
    with pytest.raises(ValueError, match="level"):
        predictions(head(level=2), maps())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"width": 20}, "norm 'group' needs a multiple of 32 channels"),
        ({"convolutions": 0}, "convolutions is 0"),
        ({"norm": "layer"}, "norm 'layer' is unknown"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        head(**changes)
