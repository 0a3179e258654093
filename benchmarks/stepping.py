"""Our side of a benchmark: what a command line trains, step by step."""

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

CLASSES = ("cat", "dog")
BATCHES_PER_EPOCH = 1_000
"""Length of the training split that a `Stepping` is prepared for."""


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Sets up the process as `fpn_jax.main` does; call it before JAX is imported.

    Args:
      coordinator: `HOST:PORT` of process 0, if there are several processes.
      num_processes: Number of processes.
      process_id: Number of this process.
    """
    from fpn_jax import runtime

    runtime.use_large_pages()
    # Another framework may need the device's memory in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    runtime.set_environment()
    runtime.join(coordinator, num_processes, process_id)


def given_by(arguments: Sequence[str]):
    """Returns the config file and the keys that a command line gives.

    Args:
      arguments: `--config=FILE`, and keys as `--config.KEY=VALUE`.
    """
    from fpn_jax import command_line

    (file,), words = command_line.split(list(arguments))
    return command_line.read(file.removeprefix("--config="), words)


def experiment_of(arguments: Sequence[str]):
    """Returns the experiment of `python -m fpn_jax.main ARGUMENTS` on cats and dogs.

    Args:
      arguments: `--config=FILE`, and keys as `--config.KEY=VALUE`.
    """
    from fpn_jax.data.records import SourceInfo
    from fpn_jax.experiment import Experiment
    from fpn_jax.resolve import resolve

    info = SourceInfo(
        classes=CLASSES,
        fields=("label", "mask", "boxes", "box_labels", "box_crowd"),
        mask_classes=("background", "pet"),
    )
    return Experiment(resolve(given_by(arguments)), info)


def data_of(root: str | None) -> tuple[str, ...]:
    """Returns the arguments that choose the images: of a folder, or drawn."""
    if root:
        return "--config.data.source=folder", f"--config.data.root={root}"
    return (
        "--config.data.source=drawn",
        "--config.data.source.train_records=256",
        "--config.data.source.validate_records=16",
    )


@dataclasses.dataclass(frozen=True)
class Unread:
    """A source for a training that is only prepared, and reads no record.

    Attributes:
      info: What the source declares, a `SourceInfo`.
      records: Number of records.
    """

    info: Any
    records: int

    def __len__(self) -> int:
        return self.records


class Stepping:
    """The train step of a command line on one batch of noise, as late in its run.

    Layers that are frozen for the whole run cost no gradient; those that are unfrozen
    during the run are unfrozen. The batch is on the device before the first step.

    Args:
      arguments: `--config=FILE`, and keys as `--config.KEY=VALUE`.

    Attributes:
      experiment: The experiment of the command line.
      parameters: Number of parameters.
      images: Images per step, of all processes together.
    """

    def __init__(self, arguments: Sequence[str]):
        import jax

        from fpn_jax.train import parallel

        self.experiment = experiment_of(arguments)
        data = self.experiment.config.data
        self.images, size = data.global_batch_size, data.image_size
        records = Unread(self.experiment.info, BATCHES_PER_EPOCH * self.images)
        prepared = self.experiment.prepare(records, records)
        self._state = parallel.replicate(jax.jit(prepared.initial)())
        self.parameters = sum(x.size for x in jax.tree.leaves(self._state.params))
        self._step = prepared.step_at(10**6)
        share = self.images // jax.process_count()
        batch = _noise(share, size, self.experiment.task)
        batch = parallel.shard(batch)
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
        spec = jax.sharding.PartitionSpec("data")
        sharding = jax.sharding.NamedSharding(mesh, spec)
        self._batch = jax.device_put(batch, sharding)

    @property
    def params(self):
        """The current parameters."""
        return self._state.params

    def run(self, steps: int = 1) -> None:
        """Takes steps, and returns when the last one has ended."""
        import jax

        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))

    def seconds(self, steps: int) -> float:
        """Returns the mean seconds of a step, over steps in a row."""
        began = time.perf_counter()
        self.run(steps)
        return (time.perf_counter() - began) / steps

    def flops(self) -> float:
        """Returns the operations of a step, as XLA counts them in the compiled step."""
        analysis = self._step.lower(self._state, self._batch).compile().cost_analysis()
        return float(analysis["flops"])


def _noise(share: int, size: int, task: Any) -> dict[str, np.ndarray]:
    """Returns a batch of noise with what a task needs."""
    noise = np.random.default_rng(0)
    batch = {
        "image": noise.integers(0, 256, (share, size, size, 3), np.uint8),
        "weight": np.ones(share, np.float32),
        "index": np.arange(share, dtype=np.int32),
    }
    fields = {
        "label": np.arange(share, dtype=np.int32) % 2,
        "mask": noise.integers(0, 2, (share, size, size), np.uint8),
    }
    # Two boxes of each image, and padding.
    count = task.max_boxes
    boxes = np.zeros((share, count, 4), np.float32)
    low = noise.uniform(0, size / 2, (share, 2, 2))
    side = noise.uniform(20, 20 + size / 3, (share, 2, 2))
    boxes[:, :2] = np.concatenate([low, low + side], axis=-1)
    labels = np.full((share, count), -1, np.int32)
    labels[:, :2] = (0, 1)
    fields |= {
        "boxes": boxes,
        "box_labels": labels,
        "box_crowd": np.zeros((share, count), np.int32),
    }
    return batch | {name: fields[name] for name in task.needs}
