"""What a training waits for while a checkpoint is written, beside Orbax alone.

    python -m benchmarks.checkpoint [--mebibytes=300] [--repeats=7]

The state is that of a classifier under AdamW with a moving average: parameters, two
moments, the average, statistics. `blocking` is until the step may go on, `written`
until the files are complete. Orbax alone writes the same arrays, without the checksums,
the config and the ranking that ours keeps.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import stepping, timing


def state_of(mebibytes: float):
    """Returns a replicated state of about so many MiB."""
    import jax
    import jax.numpy as jnp
    import optax

    from fpn_jax.train import parallel, state

    # Four copies of the parameters, in float32; kernels of a few MiB, as in a ResNet.
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
    """Returns name → what begins to write a state, and what waits for its files."""
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
    """Returns what of a state takes room."""
    kept = ("params", "batch_stats", "opt_state", "ema")
    return {name: getattr(state, name) for name in kept}


def measure(mebibytes: float, repeats: int) -> tuple[float, dict[str, dict]]:
    """Returns the state's MiB, and name → seconds `blocking` and `written`."""
    import jax

    state = state_of(mebibytes)
    size = sum(
        leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes")
    )
    taken: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = writers(Path(folder))
        # The first one also makes threads and folders.
        for number in range(-1, repeats):
            now = state.replace(step=state.step + number + 2)
            for name, (begin, wait) in made.items():
                began = time.perf_counter()
                begin(now)
                blocked = time.perf_counter() - began
                wait()
                if number >= 0:
                    of = taken.setdefault(name, {"blocking": [], "written": []})
                    of["blocking"].append(blocked)
                    of["written"].append(time.perf_counter() - began)
    return size / 2**20, taken


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=float, default=300, help="of the state")
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
