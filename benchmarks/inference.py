"""Prediction compared with PyTorch: latency, throughput, and the exported model.

    python -m benchmarks.inference [--cases=resnet18,…] [--repeats=15]

Latency is measured with one image, throughput with 64, from uint8 pixels on the device
to probabilities on the device. `exported` is our model, exported to StableHLO and read
back. PyTorch runs the same network channels-last in inference mode, eagerly (`torch`)
and compiled (`torch_compile`). On a GPU everything computes in bfloat16.
"""

import argparse
import warnings
from collections.abc import Callable

import numpy as np

from benchmarks import stepping, timing
from benchmarks.train_step import CASES, Case, arguments_of

BATCHES = {"latency": 1, "throughput": 64}
"""Measurement → images at a time."""


def predictor_of(case: Case, dtype: str):
    """Returns the predictor of a case, with random parameters."""
    import jax
    import jax.numpy as jnp

    from fpn_jax.trained import Trained
    from fpn_jax.workdir.folder import Workdir

    experiment = stepping.experiment_of(arguments_of(case, dtype))
    sample = jnp.zeros((1, *experiment.image_size, 3), jnp.uint8)
    variables = jax.jit(lambda rng: experiment.model.init(rng, sample, train=False))(
        jax.random.key(0)
    )
    return Trained(Workdir(""), experiment, 0, variables).predictor()


def ours(case: Case, dtype: str, images: int) -> dict[str, Callable[[], object]]:
    """Returns name → function that predicts: our model, and the exported one."""
    import jax
    import jax.numpy as jnp
    from jax import export

    from fpn_jax.exporters import stablehlo

    predictor = predictor_of(case, dtype)
    compiled = jax.jit(predictor.exported)
    serialized = bytearray(stablehlo.serialize(predictor))
    reloaded = jax.jit(export.deserialize(serialized).call)
    shape = (images, *predictor.image_size, 3)
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return {
        "ours": lambda: compiled(pixels).block_until_ready(),
        "exported": lambda: reloaded(pixels).block_until_ready(),
    }


def theirs(case: Case, dtype: str, images: int) -> dict[str, Callable[[], None]]:
    """Returns name → function that predicts: PyTorch's model, eager and compiled."""
    import torch

    from benchmarks import torch_peers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = torch_peers.Classifier(case.backbone, fpn=case.fpn, size=case.size)
    model = model.eval().to(device, memory_format=torch.channels_last)
    shape = (images, 3, case.size, case.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    mean = torch.tensor((0.485, 0.456, 0.406), device=device).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225), device=device).view(1, 3, 1, 1)

    def probabilities(pixels):
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return model((pixels.float() / 255 - mean) / std).float().softmax(-1)

    def timed(function):
        def call():
            with torch.inference_mode():
                function(pixels)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    return {
        "torch": timed(probabilities),
        "torch_compile": timed(torch.compile(probabilities, mode="max-autotune")),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="separated by commas")
    parser.add_argument("--size", type=int, default=224, help="side of the images, px")
    parser.add_argument("--repeats", type=int, default=15, help="rounds, in turns")
    given = parser.parse_args()
    unknown = set(given.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"unknown cases {sorted(unknown)}; choose from {list(CASES)}")
    stepping.start()
    import jax

    warnings.simplefilter("ignore")
    dtype = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    report = timing.Report("inference")
    for name in given.cases.split(","):
        case = CASES[name]._replace(size=given.size)
        for what, images in BATCHES.items():
            calls = ours(case, dtype, images) | theirs(case, dtype, images)
            taken = timing.in_turns(calls, given.repeats, warm_up=3)
            times = {who: timing.spread(seconds) for who, seconds in taken.items()}
            for who, spread in times.items():
                report.add(
                    case=name,
                    what=what,
                    images=images,
                    who=who,
                    milliseconds=1e3 * spread["median"],
                    shortest=1e3 * spread["shortest"],
                    longest=1e3 * spread["longest"],
                    images_per_second=images / spread["median"],
                    ratio_to_torch=times["torch"]["median"] / spread["median"],
                )
    report.show()


if __name__ == "__main__":
    main()
