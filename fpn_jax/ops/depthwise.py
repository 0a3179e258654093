"""Depthwise convolution: every channel is filtered by a kernel of its own."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Padding = str | Sequence[tuple[int, int]]
"""`"SAME"`, `"VALID"`, or cells `(before, after)` for height and width."""


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Padding = "SAME",
    dilation: int = 1,
) -> jax.Array:
    """Filters every channel by its own kernel.

    `y[b, i, j, c] = Σ_uv kernel[u, v, 0, c] · x[b, s·i + d·u, s·j + d·v, c]` of the
    padded map. On a CPU the sum over `u` and `v` is written out, since XLA's grouped
    convolution is many times slower there; elsewhere it is that convolution. Sums are
    float32 at least. Differentiates in reverse mode only.

    Args:
      x: Maps, `[B, H, W, C]`.
      kernel: `[k, k', 1, C]`, of the maps' type.
      stride: Step `s` from one window to the next, in cells.
      padding: See `Padding`; padded cells are 0.
      dilation: Distance `d` of neighbouring taps, in cells.

    Returns:
      Maps, `[B, H', W', C]`, of the input's type.

    Raises:
      ValueError: The kernel's last axes are not `1` and the number of channels.

    Example:
      >>> x = jnp.arange(4.0).reshape(1, 1, 4, 1)
      >>> depthwise_conv(x, jnp.ones((1, 3, 1, 1)))[0, 0, :, 0].tolist()
      [1.0, 3.0, 6.0, 5.0]
    """
    if kernel.shape[2:] != (1, x.shape[-1]):
        raise ValueError(
            f"kernel has shape {kernel.shape}; for {x.shape[-1]} channels it must be "
            f"[k, k', 1, {x.shape[-1]}]"
        )
    if isinstance(padding, str):
        windows = [dilation * (size - 1) + 1 for size in kernel.shape[:2]]
        padding = jax.lax.padtype_to_pads(
            x.shape[1:3], windows, (stride, stride), padding
        )
    arguments = {"stride": stride, "padding": tuple(padding), "dilation": dilation}
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_sum_of_taps, **arguments),
        default=partial(_grouped_conv, **arguments),
    )


def _grouped_conv(x, kernel, stride, padding, dilation):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _sum_of_taps(x, kernel, stride, padding, dilation):
    shifted = _shifted(_wide(x), kernel.shape[:2], stride, padding, dilation)
    taps = _wide(kernel).reshape(-1, x.shape[-1])
    return sum(map(jnp.multiply, shifted, taps)).astype(x.dtype)


def _forward(x, kernel, stride, padding, dilation):
    return _sum_of_taps(x, kernel, stride, padding, dilation), (x, kernel)


def _backward(stride, padding, dilation, residuals, gradient):
    x, kernel = map(_wide, residuals)
    dtype, gradient = gradient.dtype, _wide(gradient)
    to_x = _gradient_of_map(x, kernel, gradient, stride, padding, dilation)
    shifted = _shifted(x, kernel.shape[:2], stride, padding, dilation)
    products = [tap * gradient for tap in shifted]
    # One pass over both maps for all taps; as many sums would be as many passes.
    columns = jax.lax.reduce(
        products,
        [jnp.zeros((), x.dtype)] * len(products),
        lambda a, b: [u + v for u, v in zip(a, b, strict=True)],
        (0, 1),
    )
    to_kernel = jnp.stack([column.sum(axis=0) for column in columns])
    return to_x.astype(dtype), to_kernel.reshape(kernel.shape).astype(dtype)


_sum_of_taps.defvjp(_forward, _backward)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _shifted(x, window, stride, padding, dilation):
    """Returns for every tap of the window the cells it meets, `[B, H', W', C]`."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    spans = [dilation * (size - 1) + 1 for size in window]
    ends = [x.shape[1 + axis] - spans[axis] + 1 for axis in range(2)]
    return [
        x[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        for row in range(0, spans[0], dilation)
        for column in range(0, spans[1], dilation)
    ]


def _gradient_of_map(x, kernel, gradient, stride, padding, dilation):
    """Returns the gradient of the map, made of one dense map for each phase.

    Padded cell `s·n + r` is met by the taps whose offset `t` is `r` modulo `s`, in
    window `n − t // s`.
    """
    padded = [x.shape[1 + axis] + sum(padding[axis]) for axis in range(2)]
    cells = [-(-size // stride) for size in padded]
    reach = [dilation * (size - 1) // stride for size in kernel.shape[:2]]
    widths = [
        (reach[axis], cells[axis] - gradient.shape[1 + axis]) for axis in range(2)
    ]
    windows = jnp.pad(gradient, ((0, 0), *widths, (0, 0)))
    phases = [
        [jnp.zeros((len(x), *cells, x.shape[-1]), x.dtype)] * stride
        for _ in range(stride)
    ]
    for row, column in np.ndindex(kernel.shape[:2]):
        (down, above), (right, left) = (
            divmod(dilation * offset, stride) for offset in (row, column)
        )
        top, start = reach[0] - down, reach[1] - right
        met = windows[:, top : top + cells[0], start : start + cells[1]]
        phases[above][left] += met * kernel[row, column, 0]
    rows = [jnp.stack(columns, axis=3) for columns in phases]
    whole = jnp.stack(rows, axis=2)
    whole = whole.reshape(len(x), *(stride * size for size in cells), x.shape[-1])
    (top, _), (left, _) = padding
    return whole[:, top : top + x.shape[1], left : left + x.shape[2]]
