import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.train import parallel
from fpn_jax.train.steps import AXIS


class Counter(flax.struct.PyTreeNode):
    total: jax.Array
    rng: jax.Array


def counter():
    return Counter(total=jnp.arange(3.0), rng=jax.random.key(7))


def test_the_devices_share_a_batch_evenly():
    assert jax.device_count() == 8
    assert parallel.batch_size_per_device(8) == 1
    assert parallel.batch_size_per_device(64) == 8


@pytest.mark.parametrize(
    ("size", "near"), [(0, 8), (-8, 8), (1, 8), (7, 8), (13, 16), (60, 64), (65, 64)]
)
def test_a_batch_that_the_devices_do_not_divide_is_refused(size, near):
    message = rf"_size is {size}; it must be a multiple of .* such as {near}$"
    with pytest.raises(InputError, match=message):
        parallel.batch_size_per_device(size)


def test_a_batch_is_cut_in_its_order():
    batch = {"image": np.arange(16 * 6).reshape(16, 3, 2), "label": np.arange(16)}
    cut = parallel.shard(batch)
    assert cut["image"].shape == (8, 2, 3, 2)
    np.testing.assert_array_equal(cut["label"], np.arange(16).reshape(8, 2))
    np.testing.assert_array_equal(cut["image"].reshape(16, 3, 2), batch["image"])


@pytest.mark.parametrize("place", [parallel.replicate, parallel.localize])
def test_a_replicated_tree_is_whole_on_every_device(place):
    tree = place(counter())
    assert tree.total.shape == (3,)
    assert tree.total.sharding.is_fully_replicated
    assert len(tree.total.sharding.device_set) == 8
    for shard in tree.total.addressable_shards:
        np.testing.assert_array_equal(shard.data, [0.0, 1.0, 2.0])
    assert len(tree.rng.sharding.device_set) == 8
    np.testing.assert_array_equal(
        jax.random.key_data(tree.rng), jax.random.key_data(jax.random.key(7))
    )


def test_one_process_owns_its_arrays_already():
    tree = parallel.replicate(counter())
    assert parallel.globalize(tree) is tree
    rows = {"index": np.arange(4)}
    assert parallel.gather(rows) is rows
    assert parallel.replicated() == parallel.replicated_over_all()


def test_a_mapped_train_step_sees_its_own_part_and_reuses_the_state():
    def step(state, batch):
        place = jax.lax.axis_index(AXIS)
        seen = jnp.zeros(8).at[place].set(jnp.sum(batch["x"]))
        return state.replace(total=state.total + 1), jax.lax.psum(seen, AXIS)

    start = parallel.replicate(counter())
    x = np.arange(24.0, dtype=np.float32)
    end, seen = parallel.map_train_step(step)(start, parallel.shard({"x": x}))
    np.testing.assert_array_equal(seen, x.reshape(8, 3).sum(1))
    np.testing.assert_array_equal(end.total, [1.0, 2.0, 3.0])
    assert end.total.sharding.is_fully_replicated
    assert start.total.is_deleted()


def test_a_mapped_evaluation_step_keeps_variables_and_cuts_predictions():
    def step(variables, batch):
        scaled = variables["scale"] * batch["x"]
        return jax.lax.psum(jnp.sum(scaled), AXIS), {"scaled": scaled}

    variables = parallel.replicate({"scale": jnp.float32(2)})
    x = np.arange(16.0, dtype=np.float32)
    total, predictions = parallel.map_eval_step(step)(
        variables, parallel.shard({"x": x})
    )
    assert float(total) == 2 * x.sum()
    np.testing.assert_array_equal(predictions["scaled"], 2 * x.reshape(8, 2))
    assert not variables["scale"].is_deleted()


def test_simulated_devices_must_wait_for_each_step(monkeypatch):
    assert parallel.must_wait()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert not parallel.must_wait()
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not parallel.must_wait()
