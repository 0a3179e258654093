"""Devices and processes: the only module that knows how replicas are laid out.

The state is replicated as plain arrays. A batch is split over the local devices of
every process. No other module calls `jax.pmap`.
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
    """Returns the number of examples of a global batch on each device.

    Args:
      global_batch_size: Number of examples of a batch, over all processes.

    Raises:
      InputError: The batch size is no multiple of the number of devices.
    """
    devices = jax.device_count()
    if global_batch_size < 1 or global_batch_size % devices:
        near = max(devices, round(global_batch_size / devices) * devices)
        raise InputError(
            f"data.global_batch_size is {global_batch_size}; it must be a multiple of "
            f"the {devices} devices, such as {near}"
        )
    return global_batch_size // devices


def map_train_step(step: Callable) -> Callable:
    """Returns a compiled train step over all devices.

    The state is replicated before and after the step, and its buffers are donated.

    Args:
      step: The train step of one replica.
    """
    return jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0
    )


def map_eval_step(step: Callable) -> Callable:
    """Returns a compiled evaluation step over all devices.

    The returned metrics are replicated; the kept rows are split like the batch.

    Args:
      step: The evaluation step of one replica.
    """
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, 0))


def replicated() -> NamedSharding:
    """Returns the sharding of a state: a copy on every local device."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def replicated_over_all() -> NamedSharding:
    """Returns the sharding of a checkpointed state: a copy on every device."""
    return NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Any) -> Any:
    """Returns a copy of the tree on every local device.

    The train step can donate only a state that is on the local devices.

    Args:
      tree: A pytree of arrays.
    """
    return jax.device_put(tree, replicated())


def shard(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Splits a process's batch over the local devices.

    Args:
      batch: Arrays `[B, …]`; `B` is a multiple of the number of local devices.

    Returns:
      Arrays `[local devices, B / local devices, …]`.
    """
    devices = jax.local_device_count()
    return {
        key: value.reshape(devices, -1, *value.shape[1:])
        for key, value in batch.items()
    }


def globalize(tree: Any) -> Any:
    """Returns a replicated tree as arrays that all processes share.

    The mapped step returns arrays of this process alone, which a checkpoint of several
    processes cannot store.

    Args:
      tree: A replicated pytree of arrays.
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
    """Returns a copy on every local device of arrays that all processes share.

    Args:
      tree: A pytree of arrays, as `globalize` returns it.
    """
    if jax.process_count() == 1:
        return replicate(tree)

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return np.asarray(leaf.addressable_shards[0].data)

    return replicate(jax.tree.map(one, tree))


def gather(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the rows of all processes, in the order of the processes.

    Args:
      rows: Arrays with the same leading dimension in every process.
    """
    if jax.process_count() == 1:
        return rows
    return jax.tree.map(
        lambda a: np.asarray(a).reshape(-1, *a.shape[2:]),
        multihost_utils.process_allgather(rows),
    )


def barrier(name: str) -> None:
    """Waits until every process has called this function.

    Args:
      name: Name of the barrier, for error messages; the same in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def must_wait() -> bool:
    """Returns whether every step must end before the next one is dispatched.

    Simulated CPU devices share one thread pool, in which overlapping steps deadlock
    until XLA ends the process.
    """
    return jax.default_backend() == "cpu" and jax.device_count() > 1
