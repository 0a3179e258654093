"""Compares heads with plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from fpn_jax import heads
from fpn_jax.errors import InputError
from fpn_jax.layers import pooling

CLASSES = 3
CLASSIFIERS = [name for name, head in heads.HEADS.items() if "logits" in head.outputs]


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
    return evaluate(head, parameters, maps), parameters


def evaluate(head, parameters, maps):
    apply = jax.jit(functools.partial(head.apply, train=False))
    predictions = apply({"params": parameters}, maps)
    assert list(predictions) == ["logits"]
    assert predictions["logits"].shape == (2, CLASSES)
    assert predictions["logits"].dtype == jnp.float32
    return predictions["logits"]


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


@pytest.mark.parametrize("pool", pooling.names())
def test_pool_head_works_with_every_pooling_layer(maps, pool):
    head = heads.build("pool", num_classes=CLASSES, pool=pool)
    logits, parameters = run(head, maps)
    assert set(parameters) <= {"logits", "pool2", "pool3", "pool4"}

    @jax.jit
    def vectors(maps):
        return [
            pooling.build(pool).apply(
                {"params": parameters.get(f"pool{level}", {})}, x, train=False
            )
            for level, x in maps.items()
        ]

    expected = dense(np.concatenate(vectors(maps), axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_pool_head_reads_only_the_configured_levels(maps):
    head = heads.build("pool", num_classes=CLASSES, levels=(4, 2))
    logits, parameters = run(head, maps)
    vectors = [maps[level].mean((1, 2)) for level in (2, 4)]
    expected = dense(np.concatenate(vectors, axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"levels \(4, 2\), .* only \(2,\)"):
        head.apply({"params": parameters}, {2: maps[2]}, train=False)


def test_arguments_of_the_pooling_layer_are_passed_on(maps):
    head = heads.build("pool", num_classes=CLASSES, pool={"name": "k_max", "k": 2})
    # A head must be hashable, to be a key of a cache or a static argument of jit.
    assert hash(head) == hash(head.clone())
    logits, parameters = run(head, maps)
    vectors = [np.sort(x.reshape(2, -1, 4), 1)[:, -2:].mean(1) for x in maps.values()]
    expected = dense(np.concatenate(vectors, axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert head == head.clone(pool=FrozenDict({"name": "k_max", "k": 2}))


def numpy_bins(x, bins):
    height, width = x.shape[1:3]
    for i in range(bins):
        rows = slice(i * height // bins, -(-(i + 1) * height // bins))
        for j in range(bins):
            columns = slice(j * width // bins, -(-(j + 1) * width // bins))
            yield x[:, rows, columns]


@pytest.mark.parametrize(
    ("arguments", "levels", "reduce"),
    [
        ({}, (4,), np.max),
        ({"bins": (3, 1), "pool": "average", "levels": (2, 3)}, (2, 3), np.mean),
    ],
)
def test_spp_equals_numpy(maps, arguments, levels, reduce):
    head = heads.build("spp", num_classes=CLASSES, **arguments)
    logits, parameters = run(head, maps)
    vectors = [
        reduce(part, axis=(1, 2))
        for level in levels
        for bins in arguments.get("bins", (4, 2, 1))
        for part in numpy_bins(maps[level], bins)
    ]
    expected = dense(np.concatenate(vectors, axis=1), parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_spp_feature_count_does_not_depend_on_the_map_size(maps):
    head = heads.build("spp", num_classes=CLASSES, pool={"name": "gem", "p": 2})
    _, parameters = run(head, maps)
    assert parameters["logits"]["kernel"].shape == ((16 + 4 + 1) * 4, CLASSES)
    assert set(parameters) == {"logits", "pool4"}
    larger = {level: np.repeat(x, 3, axis=1) for level, x in maps.items()}
    assert jnp.isfinite(evaluate(head, parameters, larger)).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("level", "grid"), [(None, 1), (2, 3)])
def test_mlp_equals_numpy(maps, activation, level, grid):
    head = heads.build(
        "mlp",
        num_classes=CLASSES,
        grid=grid,
        widths=(6, 5),
        activation=activation,
        level=level,
    )
    logits, parameters = run(head, maps)
    assert set(parameters) == {"hidden1", "hidden2", "logits"}
    parts = [part.mean((1, 2)) for part in numpy_bins(maps[level or 4], grid)]
    x = np.concatenate(parts, axis=1)
    for name in ("hidden1", "hidden2"):
        x = dense(x, parameters[name])
        x = np.maximum(x, 0) if activation == "relu" else np.tanh(x)
    expected = dense(x, parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_mlp_flattens_a_map_of_the_grid_size_without_resizing(maps):
    square = {2: maps[2][:, :3, :3]}
    head = heads.build("mlp", num_classes=CLASSES, grid=3, widths=(6,))
    logits, parameters = run(head, square)
    hidden = np.maximum(dense(square[2].reshape(2, -1), parameters["hidden1"]), 0)
    expected = dense(hidden, parameters["logits"])
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_pool_head_accepts_maps_of_any_size(maps):
    head = heads.build("pool", num_classes=CLASSES)
    _, parameters = run(head, maps)
    larger = {level: np.repeat(x, 3, axis=1) for level, x in maps.items()}
    np.testing.assert_allclose(
        evaluate(head, parameters, larger),
        evaluate(head, parameters, maps),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_order_of_levels_in_the_dict_does_not_matter(maps, name):
    head = heads.build(name, num_classes=CLASSES)
    logits, parameters = run(head, maps)
    backwards = dict(reversed(maps.items()))
    np.testing.assert_array_equal(logits, evaluate(head, parameters, backwards))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("flatten", {"combine": "sum"}),
        ("flatten", {"combine": "concat"}),
        ("mlp", {"grid": 2, "widths": (16,)}),
    ],
)
def test_bfloat16_gives_float32_logits_and_gradients(maps, name, arguments):
    make = {"num_classes": CLASSES, **arguments}
    expected, parameters = run(heads.build(name, **make), maps)
    head = heads.build(name, **make, dtype=jnp.bfloat16)

    def logits(parameters):
        return head.apply({"params": parameters}, maps, train=True)["logits"]

    @jax.jit
    def with_gradients(parameters):
        actual, pullback = jax.vjp(logits, parameters)
        return actual, pullback(jnp.ones_like(actual))

    actual, gradients = with_gradients(parameters)
    assert actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() < 2e-2 * np.abs(expected).max()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pool", {"pool": {"name": "covariance", "width": 3}}),
        ("spp", {"pool": "gem", "bins": (2, 1), "levels": (2, 3)}),
        ("mlp", {"widths": (5,), "activation": "tanh"}),
    ],
)
def test_gradients_are_finite_and_reach_every_parameter(maps, name, arguments):
    head = heads.build(name, num_classes=CLASSES, **arguments)
    _, parameters = run(head, maps)

    def loss(parameters, maps):
        logits = head.apply({"params": parameters}, maps, train=True)["logits"]
        return jnp.square(logits).sum()

    for_parameters, for_maps = jax.jit(jax.grad(loss, (0, 1)))(parameters, maps)
    for path, leaf in jax.tree.leaves_with_path(for_parameters):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, path
    assert all(jnp.isfinite(leaf).all() for leaf in for_maps.values())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("flatten", {}),
        ("flatten", {"combine": "concat"}),
        ("pool", {}),
        ("spp", {}),
        ("mlp", {}),
    ],
)
def test_dropout_is_active_only_in_training(maps, name, arguments):
    head = heads.build(name, num_classes=CLASSES, dropout=0.5, **arguments)
    _, parameters = run(head, maps)

    @functools.partial(jax.jit, static_argnums=1)
    def logits(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        predictions = head.apply({"params": parameters}, maps, train=train, rngs=rngs)
        return predictions["logits"]

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
        ("pool", {"num_classes": 2, "levels": ()}, r"levels are \(\)"),
        (
            "pool",
            {"num_classes": 2, "pool": {"name": "k_max", "n": 2}},
            "argument of pool 'k_max' 'n' is unknown; choose one of k",
        ),
        (
            "pool",
            {"num_classes": 2, "pool": {"name": "average", "window": 2}},
            "argument of pool 'average' 'window' is unknown",
        ),
        (
            "pool",
            {"num_classes": 2, "pool": {"name": "lp", "p": -1.0}},
            r"p is -1\.0",
        ),
        ("spp", {"num_classes": 2, "bins": ()}, r"bins are \(\)"),
        ("spp", {"num_classes": 2, "bins": (2, 0)}, "bins is 0"),
        ("spp", {"num_classes": 2, "pool": "sum"}, "pool 'sum' is unknown"),
        ("spp", {"num_classes": 2, "pool": "covariance"}, "pools whole maps only"),
        ("spp", {"num_classes": 2, "pool": {"name": "max", "k": 2}}, "'k' is unknown"),
        ("spp", {"num_classes": 2, "levels": ()}, r"levels are \(\)"),
        ("mlp", {"num_classes": 2, "grid": 0}, "grid is 0"),
        ("mlp", {"num_classes": 2, "widths": ()}, r"widths are \(\)"),
        ("mlp", {"num_classes": 2, "widths": (8, 0)}, "one of the widths is 0"),
        ("mlp", {"num_classes": 2, "activation": "elu"}, "activation 'elu' is unknown"),
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
def test_invalid_arguments_are_refused(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        heads.build(name, **arguments)


def test_accepts_returns_the_argument_names():
    own = {"num_classes", "pool", "levels", "dropout"}
    assert heads.accepts("pool") == own
    assert heads.accepts("spp") == own | {"bins"}
    assert "dtype" in heads.accepts("flatten")
    with pytest.raises(InputError, match="head 'box' is unknown"):
        heads.accepts("box")
