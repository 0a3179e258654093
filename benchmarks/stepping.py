"""Our side of a benchmark: what a command line trains, step by step."""

import time
from collections.abc import Sequence

import numpy as np

PARTS = ("backbone", "neck", "head")
"""Dicts of a config that hold a constructor's arguments."""


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Sets up the environment as `fpn_jax.main` does; before JAX has a device.

    Args:
      coordinator: `HOST:PORT` of process 0, where there are several.
      num_processes: How many.
      process_id: Which one this is.
    """
    import os

    from fpn_jax import runtime

    runtime.use_large_pages()
    # Another framework may need the device's memory in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    runtime.start(coordinator, num_processes, process_id)


def experiment_of(arguments: Sequence[str], classes: Sequence[str] = ("cat", "dog")):
    """Returns what `python -m fpn_jax.main ARGUMENTS` trains, built in this process.

    Args:
      arguments: `--config=FILE` and overrides of its keys.
      classes: Names of the classes.
    """
    from absl import flags
    from ml_collections import config_flags

    from fpn_jax import config as configs
    from fpn_jax import experiment

    values = flags.FlagValues()
    argv, added = configs.split_parts(["benchmarks", *arguments], PARTS)
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    for key, value in added.items():
        part, name = key.split(".", 1)
        with values.config[part].unlocked():
            values.config[part][name] = value
    overridden = config_flags.get_override_values(values["config"])
    config = experiment.resolve(values.config, frozenset({*overridden, *added}))
    return experiment.Experiment(config, tuple(classes))


def data_of(root: str | None) -> tuple[str, ...]:
    """Returns the arguments that name the images: of a folder, or drawn."""
    if root:
        return "--config.data.source=folder", f"--config.data.root={root}"
    return (
        "--config.data.source=drawn",
        "--config.data.drawn.train_records=256",
        "--config.data.drawn.validate_records=16",
    )


class Stepping:
    """The train step of a command line on one batch of noise, as late in its run.

    Parts that never train cost no gradient; those that thaw have thawed. The batch is
    on the device already.

    Attributes:
      experiment: What is trained.
      parameters: Number of parameters.
      images: Images a step, of all processes together.
    """

    def __init__(self, arguments: Sequence[str]):
        import jax

        from fpn_jax.train import parallel

        self.experiment = experiment_of(arguments)
        data = self.experiment.config.data
        transformation, _ = self.experiment.optimizer(1_000)
        initial = jax.jit(lambda: self.experiment.initial_state(transformation))
        self._state = parallel.replicate(initial())
        self.parameters = sum(x.size for x in jax.tree.leaves(self._state.params))
        self._step = self.experiment.train_step_at(transformation)(10**6)
        self.images, size = data.global_batch_size, data.image_size
        noise = np.random.default_rng(0)
        share = self.images // jax.process_count()
        batch = parallel.shard(
            {
                "image": noise.integers(0, 256, (share, size, size, 3), np.uint8),
                "label": np.arange(share, dtype=np.int32) % 2,
                "weight": np.ones(share, np.float32),
                "index": np.arange(share, dtype=np.int32),
            }
        )
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",))
        spec = jax.sharding.PartitionSpec("data")
        sharding = jax.sharding.NamedSharding(mesh, spec)
        self._batch = jax.device_put(batch, sharding)

    @property
    def params(self):
        """The parameters as they are now."""
        return self._state.params

    def run(self, steps: int = 1) -> None:
        """Takes some steps, and returns when the last one has ended."""
        import jax

        for _ in range(steps):
            self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))

    def seconds(self, steps: int) -> float:
        """Returns the seconds of one step, the mean of some."""
        began = time.perf_counter()
        self.run(steps)
        return (time.perf_counter() - began) / steps

    def flops(self) -> float:
        """Returns the operations of a step as XLA counts them in what it compiled."""
        analysis = self._step.lower(self._state, self._batch).compile().cost_analysis()
        return float(analysis["flops"])
