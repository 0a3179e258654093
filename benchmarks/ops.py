"""Our convolutions, pooling and upsampling operations compared with PyTorch's.

    python -m benchmarks.ops [--only=max_pool] [--repeats=9]

Measures the forward pass, alone and with the gradient of every input, in turns: in
float32 on a CPU, in bfloat16 on a GPU, with PyTorch in channels-last. Both sides get
the same inputs, and nothing is timed before the outputs agree.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import stepping, timing

CHANNELS_FIRST = (0, 3, 1, 2)


class Case(NamedTuple):
    """An operation on both sides.

    Attributes:
      ours: Function of arrays `[B, H, W, C]` and `[k, k, C, F]`.
      theirs: Function of tensors `[B, C, H, W]` and `[F, C, k, k]`.
      shapes: Shapes of the inputs of `ours`: a map, then kernels.
    """

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


def cases(images: int) -> dict[str, Case]:
    """Returns name → operation, on batches of `images` images."""
    from torch.nn import functional as torch_ops

    from fpn_jax.ops import pooling, upsampling
    from fpn_jax.ops.kernels.convolution import convolve
    from fpn_jax.ops.kernels.depthwise import depthwise_conv

    made = {}

    def convolution(size, channels, features, kernel=3, stride=1, dilation=1):
        pad = dilation * (kernel // 2)
        name = f"conv {kernel}x{kernel} {size}² {channels}→{features}"
        name += f" /{stride}" * (stride > 1) + f" rate {dilation}" * (dilation > 1)
        made[name] = Case(
            functools.partial(
                convolve,
                stride=(stride,) * 2,
                padding=((pad, pad),) * 2,
                dilation=(dilation,) * 2,
            ),
            functools.partial(
                torch_ops.conv2d, stride=stride, padding=pad, dilation=dilation
            ),
            ((images, size, size, channels), (kernel, kernel, channels, features)),
        )

    convolution(32, 64, 64)
    convolution(32, 256, 256)
    convolution(8, 256, 256)
    convolution(4, 512, 512)
    convolution(2, 512, 512)
    convolution(64, 3, 64, kernel=7, stride=2)
    convolution(32, 128, 256, stride=2)
    convolution(32, 64, 256, kernel=1)
    convolution(8, 1024, 256, kernel=1)
    convolution(32, 256, 512, kernel=1, stride=2)
    for rate in (2, 6, 18):
        convolution(16, 256, 256, dilation=rate)
    for size, channels, kernel, stride in (
        *((32, 64, 3, 1), (32, 144, 3, 2), (16, 240, 5, 1), (64, 96, 3, 2)),
    ):
        made[f"depthwise {kernel}x{kernel} {size}² {channels} /{stride}"] = Case(
            functools.partial(
                depthwise_conv, stride=stride, padding=((kernel // 2,) * 2,) * 2
            ),
            functools.partial(
                torch_ops.conv2d, stride=stride, padding=kernel // 2, groups=channels
            ),
            ((images, size, size, channels), (kernel, kernel, 1, channels)),
        )
    wide = ((images, 64, 64, 64),)
    for name, ours, theirs in (
        ("max_pool", pooling.max_pool, torch_ops.max_pool2d),
        ("average_pool", pooling.average_pool, torch_ops.avg_pool2d),
    ):
        made[f"{name} 2x2 /2"] = Case(
            functools.partial(ours, window=2, stride=2),
            functools.partial(theirs, kernel_size=2, stride=2),
            wide,
        )
    made["max_pool 3x3 /2"] = Case(
        functools.partial(pooling.max_pool, window=3, stride=2, padding=1),
        functools.partial(torch_ops.max_pool2d, kernel_size=3, stride=2, padding=1),
        wide,
    )
    made["average_pool 3x3 /2"] = Case(
        functools.partial(pooling.average_pool, window=3, stride=2, padding=1),
        functools.partial(
            torch_ops.avg_pool2d,
            kernel_size=3,
            stride=2,
            padding=1,
            count_include_pad=False,
        ),
        wide,
    )
    made["global average"] = Case(pooling.average_pool, lambda x: x.mean((2, 3)), wide)
    made["global max"] = Case(pooling.max_pool, lambda x: x.amax((2, 3)), wide)
    made["lp_pool 2x2 /2"] = Case(
        lambda x: pooling.lp_pool(x, 2, 2, p=3.0),
        lambda x: torch_ops.avg_pool2d(x.abs() ** 3, 2, 2) ** (1 / 3),
        wide,
    )
    small = ((images, 16, 16, 256),)
    made["nearest x2"] = Case(
        lambda x: upsampling.resize_nearest(x, (32, 32)),
        lambda x: torch_ops.interpolate(x, size=(32, 32), mode="nearest"),
        small,
    )
    for name, ours in (
        ("bilinear", upsampling.resize_bilinear),
        ("bicubic", functools.partial(upsampling.resize_bicubic, coefficient=-0.75)),
    ):
        made[f"{name} x2"] = Case(
            lambda x, ours=ours: ours(x, (32, 32)),
            functools.partial(
                torch_ops.interpolate, size=(32, 32), mode=name, align_corners=False
            ),
            small,
        )
    made["depth_to_space x2"] = Case(
        lambda x: upsampling.depth_to_space(x, 2),
        lambda x: torch_ops.pixel_shuffle(x, 2),
        small,
    )
    made["batch_norm and relu 32² 256"] = Case(
        _batch_norm,
        lambda x: torch_ops.batch_norm(x, None, None, training=True).relu(),
        ((images, 32, 32, 256),),
    )
    return made


def _batch_norm(x):
    import flax.linen as nn
    import jax

    from fpn_jax.layers.norm import BatchNorm

    norm = BatchNorm(train=True, dtype=x.dtype)
    variables = jax.eval_shape(norm.init, jax.random.key(0), x)
    ones = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}
    filled = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, ones[path[-1].key], leaf.dtype),
        variables,
    )
    return nn.relu(norm.apply(filled, x, mutable=["batch_stats"])[0])


class Ours:
    """Our operation, compiled; `forward` and `backward` return when it has ended.

    Args:
      case: The operation.
      inputs: A map and kernels, as arrays.
      cotangent: Gradient of the output; None if no gradient is computed.
      dtype: Name of the type to compute in.
    """

    def __init__(self, case: Case, inputs, cotangent, dtype: str):
        import jax
        import jax.numpy as jnp

        self._inputs = [jnp.asarray(x, dtype) for x in inputs]
        self._cotangent = None if cotangent is None else jnp.asarray(cotangent, dtype)
        self._forward = jax.jit(case.ours)

        def pulled(inputs, cotangent):
            y, pull = jax.vjp(case.ours, *inputs)
            return y, pull(cotangent)

        self._pulled = jax.jit(pulled)
        self._wait = jax.block_until_ready

    def value(self) -> np.ndarray:
        """Returns the output, `[B, H, W, C]` or `[B, C]`."""
        return np.asarray(self._forward(*self._inputs), np.float32)

    def forward(self) -> None:
        """Computes the output."""
        self._wait(self._forward(*self._inputs))

    def backward(self) -> None:
        """Computes the output and the gradient of every input."""
        self._wait(self._pulled(self._inputs, self._cotangent))


class Theirs:
    """The operation in PyTorch, with the arguments of `Ours`."""

    def __init__(self, case: Case, inputs, cotangent, dtype: str):
        import torch

        self._torch, self._case = torch, case
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True

        def tensor(x, axes):
            x = torch.from_numpy(np.ascontiguousarray(x.transpose(axes)))
            x = x.to(self._device, getattr(torch, dtype))
            return x.contiguous(memory_format=torch.channels_last)

        axes = [CHANNELS_FIRST, *[(3, 2, 0, 1)] * (len(inputs) - 1)]
        self._inputs = [
            tensor(x, order).requires_grad_()
            for x, order in zip(inputs, axes, strict=True)
        ]
        self._cotangent = None
        if cotangent is not None:
            flat = cotangent.ndim == 2
            to = cotangent[:, None, None] if flat else cotangent
            self._cotangent = tensor(to, CHANNELS_FIRST)
            if flat:
                self._cotangent = self._cotangent.flatten(1)

    def _wait(self):
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def value(self) -> np.ndarray:
        """Returns the output, `[B, H, W, C]` or `[B, C]`."""
        with self._torch.no_grad():
            y = self._case.theirs(*self._inputs).float().cpu().numpy()
        return np.moveaxis(y, 1, -1)

    def forward(self) -> None:
        """Computes the output."""
        with self._torch.no_grad():
            self._case.theirs(*self._inputs)
        self._wait()

    def backward(self) -> None:
        """Computes the output and the gradient of every input."""
        for x in self._inputs:
            x.grad = None
        self._case.theirs(*self._inputs).backward(self._cotangent)
        self._wait()


def measure(name: str, case: Case, dtype: str, repeats: int, report) -> None:
    """Adds the row of an operation to the report.

    Args:
      name: Name of the operation.
      case: The operation.
      dtype: Name of the type to compute in.
      repeats: Number of rounds.
      report: Where the row is added.
    """
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in case.shapes]
    value = Ours(case, inputs, None, dtype).value()
    expected = Theirs(case, inputs, None, dtype).value()
    tolerance = (2e-4 if dtype == "float32" else 5e-2) * np.abs(expected).max()
    if value.shape != expected.shape or np.abs(value - expected).max() > tolerance:
        sys.exit(f"{name}: the outputs differ")
    cotangent = rng.normal(size=value.shape).astype(np.float32)
    contenders = {
        "ours": Ours(case, inputs, cotangent, dtype),
        "torch": Theirs(case, inputs, cotangent, dtype),
    }
    row = {"op": name, "dtype": dtype}
    for way in ("forward", "backward"):
        calls = {who: getattr(op, way) for who, op in contenders.items()}
        taken = timing.in_turns(calls, repeats, warm_up=3)
        medians = {who: timing.spread(times)["median"] for who, times in taken.items()}
        row[f"{way}_ms"] = 1e3 * medians["ours"]
        row[f"{way}_torch_ms"] = 1e3 * medians["torch"]
        row[f"{way}_ratio"] = medians["torch"] / medians["ours"]
    report.add(**row)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="measure operations whose name contains this text"
    )
    parser.add_argument(
        "--images", type=int, help="images of a batch; default 16 on a CPU, else 256"
    )
    parser.add_argument("--repeats", type=int, default=9, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    import jax

    # Ends the process with a message if PyTorch is not installed.
    from benchmarks import torch_peers  # noqa: F401

    on_cpu = jax.default_backend() == "cpu"
    chosen = {
        name: case
        for name, case in cases(given.images or (16 if on_cpu else 256)).items()
        if given.only in name
    }
    if not chosen:
        parser.error(f"no operation has {given.only!r} in its name")
    report = timing.Report("ops")
    for name, case in chosen.items():
        measure(name, case, "float32" if on_cpu else "bfloat16", given.repeats, report)
    report.show()


if __name__ == "__main__":
    main()
