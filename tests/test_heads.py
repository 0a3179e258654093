"""Classifiers against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import heads
from fpn_jax.errors import InputError

CLASSES = 3


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return {
        level: rng.normal(size=(2, *size, 4)).astype(np.float32)
        for level, size in {2: (5, 3), 3: (3, 2), 4: (2, 1)}.items()
    }


def dense(x, parameters):
    return x @ np.asarray(parameters["kernel"]) + parameters["bias"]


def run(head, maps):
    """Returns the logits and the parameters, with biases that are not zero."""
    variables = jax.eval_shape(
        lambda x: head.init(jax.random.key(0), x, train=False), maps
    )
    rng = np.random.default_rng(1)
    parameters = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
        variables["params"],
    )
    predictions = head.apply({"params": parameters}, maps, train=False)
    assert list(predictions) == ["logits"]
    assert predictions["logits"].shape == (2, CLASSES)
    assert predictions["logits"].dtype == jnp.float32
    return predictions["logits"], parameters


def test_flatten_and_sum_equals_numpy(maps):
    logits, parameters = run(heads.build("flatten", num_classes=CLASSES), maps)
    expected = sum(
        dense(x.reshape(2, -1), parameters[f"level{level}"])
        for level, x in maps.items()
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [None, 6])
def test_flatten_and_concat_equals_numpy(maps, width):
    head = heads.build("flatten", num_classes=CLASSES, combine="concat", width=width)
    logits, parameters = run(head, maps)
    features = [
        np.maximum(dense(x.reshape(2, -1), parameters[f"level{level}"]), 0)
        for level, x in maps.items()
    ]
    assert features[0].shape == (2, width or 256)
    expected = dense(np.concatenate(features, axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("pool", "reduce"), [("average", np.mean), ("max", np.max)])
def test_pool_equals_numpy(maps, pool, reduce):
    logits, parameters = run(heads.build("pool", num_classes=CLASSES, pool=pool), maps)
    vectors = [reduce(x, axis=(1, 2)) for x in maps.values()]
    expected = dense(np.concatenate(vectors, axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_pool_reads_maps_of_any_size(maps):
    head = heads.build("pool", num_classes=CLASSES)
    _, parameters = run(head, maps)
    larger = {level: np.repeat(x, 3, axis=1) for level, x in maps.items()}
    np.testing.assert_allclose(
        head.apply({"params": parameters}, larger, train=False)["logits"],
        head.apply({"params": parameters}, maps, train=False)["logits"],
        atol=1e-5,
    )


@pytest.mark.parametrize("name", heads.names())
def test_the_order_of_levels_in_the_dict_makes_no_difference(maps, name):
    head = heads.build(name, num_classes=CLASSES)
    logits, parameters = run(head, maps)
    backwards = dict(reversed(maps.items()))
    again = head.apply({"params": parameters}, backwards, train=False)["logits"]
    np.testing.assert_array_equal(logits, again)


@pytest.mark.parametrize("combine", ["sum", "concat"])
def test_bfloat16_gives_float32_logits_and_gradients(maps, combine):
    make = {"num_classes": CLASSES, "combine": combine}
    expected, parameters = run(heads.build("flatten", **make), maps)
    head = heads.build("flatten", **make, dtype=jnp.bfloat16)

    def logits(parameters):
        return head.apply({"params": parameters}, maps, train=True)["logits"]

    actual, pullback = jax.vjp(logits, parameters)
    assert actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()
    (gradients,) = pullback(jnp.ones_like(actual))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("flatten", {}), ("flatten", {"combine": "concat"}), ("pool", {})],
)
def test_dropout_is_random_in_training_alone(maps, name, arguments):
    head = heads.build(name, num_classes=CLASSES, dropout=0.5, **arguments)
    variables = head.init(jax.random.key(0), maps, train=False)

    def logits(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return head.apply(variables, maps, train=train, rngs=rngs)["logits"]

    assert (logits(0, True) == logits(0, True)).all()
    assert (logits(0, True) != logits(1, True)).any()
    assert (logits(0, False) == logits(1, False)).all()


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("flaten", {}, "head 'flaten' is unknown; did you mean 'flatten'"),
        ("pool", {}, "head 'pool' needs the argument 'num_classes'"),
        ("pool", {"num_classes": 1}, "num_classes is 1"),
        ("pool", {"num_classes": 2, "pool": "sum"}, "pool 'sum' is unknown"),
        ("pool", {"num_classes": 2, "dropout": 1.0}, r"dropout is 1\.0"),
        ("pool", {"num_classes": 2, "width": 3}, "'width' is unknown"),
        ("flatten", {"num_classes": 0}, "num_classes is 0"),
        ("flatten", {"num_classes": 2, "combine": "mean"}, "combine 'mean' is unknown"),
        ("flatten", {"num_classes": 2, "width": 8}, "width is 8, but combine 'sum'"),
        (
            "flatten",
            {"num_classes": 2, "combine": "concat", "width": 0},
            "width is 0",
        ),
        ("flatten", {"num_classes": 2, "dropout": -0.1}, r"dropout is -0\.1"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        heads.build(name, **arguments)


def test_accepts_names_the_arguments():
    assert heads.accepts("pool") == {"num_classes", "pool", "dropout"}
    assert "dtype" in heads.accepts("flatten")
    with pytest.raises(InputError, match="head 'box' is unknown"):
        heads.accepts("box")
