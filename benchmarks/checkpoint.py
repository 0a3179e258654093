"""Time that a training waits while a checkpoint is written, compared with Orbax alone.

    python -m benchmarks.checkpoint [--mebibytes=300] [--repeats=7]

The state is that of a classifier with AdamW and a moving average: parameters, two
moments, the average, statistics. `blocking` is the time until the next step can start,
`written` the time until the files are complete. Orbax alone writes the same arrays
without our checksums, config and ranking.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import stepping, timing


def state_of(mebibytes: float):
    """Returns a replicated state of about `mebibytes` MiB."""
    import jax
    import jax.numpy as jnp
    import optax

    from fpn_jax.train import parallel, state

    # The state has four float32 copies of the parameters, whose kernels have 2.25 MiB
    # each, as in a ResNet.
    kernels = max(1, round(mebibytes / 4 / 2.25))
    shape = (3, 3, 256, 256)

    def init(rng):
        keys = jax.random.split(rng, kernels)
        params = {f"conv{i}": jax.random.normal(keys[i], shape) for i in range(kernels)}
        return {"params": params, "batch_stats": {"mean": jnp.zeros(256)}}

    made = jax.jit(
        lambda: state.create(init, optax.adamw(1e-3), seed=0, with_ema=True)
    )()
    return parallel.replicate(made)


def writers(folder: Path) -> dict[str, tuple[Callable, Callable]]:
    """Returns name → functions: one begins to write a state, one waits for the files.

    Args:
      folder: Where the checkpoints are written.
    """
    import orbax.checkpoint as ocp

    from fpn_jax.train.checkpoints import Checkpoints

    ours = Checkpoints(folder / "ours", monitor="accuracy", keep_latest=1)
    theirs = ocp.CheckpointManager(
        (folder / "orbax").absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=1),
    )
    return {
        "ours": (lambda state: ours.save(state, {}, {"accuracy": 0.5}), ours.wait),
        "orbax": (
            lambda state: theirs.save(
                int(state.step), args=ocp.args.PyTreeSave(arrays_of(state))
            ),
            theirs.wait_until_finished,
        ),
    }


def arrays_of(state) -> dict:
    """Returns the parts of a state that have large arrays."""
    large = ("params", "batch_stats", "opt_state", "ema")
    return {name: getattr(state, name) for name in large}


def measure(mebibytes: float, repeats: int) -> tuple[float, dict[str, dict]]:
    """Returns the size of the state in MiB, and name → `blocking`, `written` seconds.

    Args:
      mebibytes: Approximate size of the state.
      repeats: Number of rounds.
    """
    import jax

    state = state_of(mebibytes)
    size = sum(
        leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes")
    )
    taken: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        contenders = writers(Path(folder))
        # The first round also creates threads and folders, and is not counted.
        for number in range(-1, repeats):
            later = state.replace(step=state.step + number + 2)
            for name, (begin, wait) in contenders.items():
                began = time.perf_counter()
                begin(later)
                blocked = time.perf_counter() - began
                wait()
                written = time.perf_counter() - began
                if number >= 0:
                    seconds = taken.setdefault(name, {"blocking": [], "written": []})
                    seconds["blocking"].append(blocked)
                    seconds["written"].append(written)
    return size / 2**20, taken


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--mebibytes", type=float, default=300, help="size of the state"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    size, taken = measure(given.mebibytes, given.repeats)
    report = timing.Report("checkpoint")
    for who, kinds in taken.items():
        for what, seconds in kinds.items():
            spread = timing.spread(seconds)
            report.add(
                who=who,
                what=what,
                mebibytes=size,
                seconds=spread["median"],
                shortest=spread["shortest"],
                longest=spread["longest"],
            )
    report.show()


if __name__ == "__main__":
    main()
