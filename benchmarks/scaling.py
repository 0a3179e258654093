"""Step time against devices and processes; work against image size, batch and depth.

    python -m benchmarks.scaling [--case=resnet18] [--repeats=5]

First, the same global batch is trained on 1, 2, 4 and 8 simulated devices of one
process, and on those of two processes. All of them share the cores of one machine, so
the time above that of a single device is the cost of dividing the batch. `collective`
is the time of the sum of one gradient over the devices alone.

Then XLA counts the operations of a train step before it is compiled, so the sizes need
not fit into memory. `slope` is the slope of a line through the logarithms.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys

import numpy as np

from benchmarks import stepping, timing
from benchmarks.train_step import CASES, arguments_of

LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2))
"""Number of processes, and of simulated devices of each process."""

IMAGES = 16
"""Images per step, of all devices together."""

VARIED = {
    "image_size": (64, 128, 256, 512, 1024),
    "global_batch_size": (8, 32, 128, 512, 2048),
    "depth": (18, 34, 50, 101, 152),
}


def seconds_of(case: str, processes: int, devices: int, steps: int) -> dict:
    """Returns the measurements of one layout, taken by new processes.

    Args:
      case: Name of the case.
      processes: Number of processes.
      devices: Number of simulated devices of each process.
      steps: Steps that are measured.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.scaling", f"--case={case}"]
    command += [f"--steps={steps}", f"--processes={processes}", f"--address={address}"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    children = [
        subprocess.Popen(
            [*command, f"--measure_as={rank}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        sys.exit(f"{processes} processes with {devices} devices each failed")
    return json.loads(outputs[0].splitlines()[-1])


def measure(case: str, steps: int) -> dict[str, float]:
    """Returns the seconds of a step and of the sum of a gradient, in this process.

    Args:
      case: Name of the case.
      steps: Steps that are measured.
    """
    import jax

    from fpn_jax.train import parallel
    from fpn_jax.train.steps import AXIS

    changed = CASES[case]._replace(images=IMAGES)
    ours = stepping.Stepping(arguments_of(changed, "float32"))
    ours.run(2)
    times = [ours.seconds(1) for _ in range(steps)]
    gradient = parallel.replicate(jax.tree.map(np.zeros_like, ours.params))
    total = jax.pmap(
        lambda tree, _: jax.lax.psum(tree, AXIS),
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
    )
    # pmap takes the number of devices from an argument that is divided among them.
    each = np.zeros(jax.local_device_count(), np.float32)

    def collective():
        jax.block_until_ready(total(gradient, each))

    summed = timing.in_turns({"sum": collective}, steps, warm_up=2)["sum"]
    return {
        "seconds": statistics.median(times),
        "collective": statistics.median(summed),
    }


def operations(case: str, what: str, value: int) -> float:
    """Returns the operations of the forward and backward pass of a train step.

    Args:
      case: Name of the case.
      what: Key of `VARIED`, the quantity that is changed.
      value: Its value.
    """
    import jax
    import jax.numpy as jnp

    from fpn_jax.train.steps import AXIS

    changed = CASES[case]
    if what == "image_size":
        changed = changed._replace(size=value)
    elif what == "global_batch_size":
        changed = changed._replace(images=value)
    else:
        changed = changed._replace(backbone=f"resnet{value}")
    model = stepping.experiment_of(arguments_of(changed, "float32")).model
    shape = (changed.images, changed.size, changed.size, 3)
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct(shape, jnp.uint8),
    )

    def loss(params, statistics, images):
        outputs, _ = model.apply(
            {"params": params, **statistics},
            images,
            train=True,
            mutable=list(statistics),
            rngs={"dropout": jax.random.key(0)},
        )
        return outputs["logits"].sum()

    statistics = {key: tree for key, tree in variables.items() if key != "params"}
    # The model sums over a named axis, so a single device needs one as well.
    step = jax.vmap(jax.grad(loss), in_axes=(None, None, 0), axis_name=AXIS)
    images = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    lowered = jax.jit(step).lower(variables["params"], statistics, images)
    return float(lowered.cost_analysis()["flops"])


def slope(values, counts) -> float:
    """Returns the exponent of the power law that fits best."""
    return float(np.polyfit(np.log(values), np.log(counts), 1)[0])


def add_layouts(report: timing.Report, case: str, steps: int, repeats: int) -> None:
    """Adds a row for every layout; layouts are measured in turns."""
    taken: dict[tuple[int, int], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for layout in LAYOUTS:
            taken.setdefault(layout, []).append(seconds_of(case, *layout, steps))
    medians = {
        layout: {
            key: statistics.median(measured[key] for measured in rounds)
            for key in ("seconds", "collective")
        }
        for layout, rounds in taken.items()
    }
    single = medians[LAYOUTS[0]]["seconds"]
    for (processes, devices), median in medians.items():
        seconds = [measured["seconds"] for measured in taken[processes, devices]]
        report.add(
            case=case,
            processes=processes,
            devices=devices,
            seconds=median["seconds"],
            shortest=min(seconds),
            longest=max(seconds),
            ratio_to_single=median["seconds"] / single,
            collective=median["collective"],
        )


def add_slopes(report: timing.Report, case: str) -> None:
    """Adds a row for every quantity of `VARIED`."""
    for what, values in VARIED.items():
        if what == "depth" and not CASES[case].backbone.startswith("resnet"):
            continue
        counts = [operations(case, what, value) for value in values]
        report.add(
            case=case,
            varied=what,
            values=list(values),
            gflop=[round(count / 1e9, 2) for count in counts],
            slope=slope(values, counts),
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="resnet18")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in turns")
    parser.add_argument("--measure_as", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure_as is not None:
        several = given.processes > 1
        stepping.start(
            *(given.address, given.processes, given.measure_as)
            if several
            else (None, None, None)
        )
        print(json.dumps(measure(given.case, given.steps)), flush=True)
        return
    report = timing.Report("scaling")
    add_layouts(report, given.case, given.steps, given.repeats)
    add_slopes(report, given.case)
    report.show()


if __name__ == "__main__":
    main()
