"""Devices and processes: the one place that knows how replicas are laid out.

The state is replicated as plain arrays; a batch is cut over the local devices of every
process. `jax.pmap` stands here and nowhere else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fpn_jax.errors import InputError
from fpn_jax.train.steps import AXIS


def batch_size_per_device(global_batch_size: int) -> int:
    """Returns the examples of a global batch that one device takes.

    Raises:
      InputError: The devices do not divide the batch.
    """
    devices = jax.device_count()
    if global_batch_size < 1 or global_batch_size % devices:
        near = max(devices, round(global_batch_size / devices) * devices)
        raise InputError(
            f"data.global_batch_size is {global_batch_size}, which {devices} devices "
            f"do not divide; the nearest that fits is {near}"
        )
    return global_batch_size // devices


def map_train_step(step: Callable) -> Callable:
    """Returns a one-replica train step as a jitted step over all devices.

    The state goes in and comes out replicated, and its buffers are reused.
    """
    return jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0
    )


def map_eval_step(step: Callable) -> Callable:
    """Returns a one-replica evaluation step as a jitted step over all devices.

    The metrics come out replicated, the kept rows cut as the batch was.
    """
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, 0))


def replicated() -> NamedSharding:
    """Returns the sharding of a state: whole on every local device."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def replicated_over_all() -> NamedSharding:
    """Returns the sharding of a checkpointed state: whole on every device there is."""
    return NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Any) -> Any:
    """Returns the tree, whole on every local device.

    A state that were not on the local devices already could not be donated.
    """
    return jax.device_put(tree, replicated())


def shard(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a process's batch with leaves `[local devices, per device, …]`."""
    devices = jax.local_device_count()
    return {
        key: value.reshape(devices, -1, *value.shape[1:])
        for key, value in batch.items()
    }


def globalize(tree: Any) -> Any:
    """Returns a replicated tree as arrays that every process owns together.

    The mapped step gives arrays of this process alone, which a checkpoint of several
    processes refuses.
    """
    if jax.process_count() == 1:
        return tree
    mesh = Mesh(np.array(jax.devices()), (AXIS,))

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return multihost_utils.host_local_array_to_global_array(
            np.asarray(leaf), mesh, PartitionSpec()
        )

    return jax.tree.map(one, tree)


def localize(tree: Any) -> Any:
    """Returns a tree of arrays of all processes, whole on the local devices."""
    if jax.process_count() == 1:
        return replicate(tree)

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return np.asarray(leaf.addressable_shards[0].data)

    return replicate(jax.tree.map(one, tree))


def gather(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the rows of all processes, one process after the other.

    Args:
      rows: Arrays with one leading dimension, as long in every process.
    """
    if jax.process_count() == 1:
        return rows
    return jax.tree.map(
        lambda a: np.asarray(a).reshape(-1, *a.shape[2:]),
        multihost_utils.process_allgather(rows),
    )


def barrier(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def must_wait() -> bool:
    """Returns whether every step must end before the next is sent off.

    Simulated CPU devices share one thread pool: steps that overlap wait for each other
    until XLA gives up.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1
