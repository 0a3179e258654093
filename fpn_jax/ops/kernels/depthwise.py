"""Depthwise convolution: every channel is filtered by its own kernel."""

from functools import partial

import jax
import jax.numpy as jnp

from fpn_jax.ops.kernels import taps
from fpn_jax.ops.kernels.linear import linear_map
from fpn_jax.ops.kernels.padding import Padding, resolve


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Padding = "same",
    dilation: int = 1,
) -> jax.Array:
    """Filters every channel by its own kernel.

    `y[b, i, j, c] = Σ_uv kernel[u, v, 0, c] · x[b, s·i + d·u, s·j + d·v, c]` of the
    padded map. On a CPU the sum over `u` and `v` is written out, because XLA's grouped
    convolution is many times slower there; other devices use that convolution. Sums
    are float32 at least.

    Args:
      x: Maps, `[B, H, W, C]`.
      kernel: `[k, k', 1, C]`, of the maps' type.
      stride: Step `s` from one window to the next, in cells.
      padding: See `Padding`; padded cells are 0.
      dilation: Distance `d` of neighbouring taps, in cells.

    Returns:
      Maps, `[B, H', W', C]`, of the input's type.

    Raises:
      InputError: The padding is unknown, or symmetric around an even kernel.
      ValueError: The kernel's last axes are not `1` and the number of channels, or the
        maps are not floating.

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
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"maps are {x.dtype}; depthwise_conv needs floats")
    pads = resolve(
        padding, x.shape[1:3], kernel.shape[:2], (stride,) * 2, (dilation,) * 2
    )
    arguments = {"stride": stride, "padding": pads, "dilation": dilation}
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


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _sum_of_taps(x, kernel, stride, padding, dilation):
    return _filtered(x, kernel, (stride, padding, dilation))


@_sum_of_taps.defjvp
def _sum_of_taps_jvp(stride, padding, dilation, primals, tangents):
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    placed = (stride, padding, dilation)
    size, window = x.shape[1:3], kernel.shape[:2]
    by_map = linear_map(
        partial(_filtered, placed=placed),
        partial(_to_map, size=size, placed=placed),
        x_tangent,
        kernel,
    )
    by_kernel = linear_map(
        lambda kernel, x: _filtered(x, kernel, placed),
        partial(_to_kernel, window=window, placed=placed),
        kernel_tangent,
        x,
    )
    return _sum_of_taps(x, kernel, *placed), by_map + by_kernel


def _filtered(x, kernel, placed):
    cells = _cells_of_taps(_wide(x), kernel.shape[:2], *placed)
    weights = _wide(kernel).reshape(-1, x.shape[-1])
    return sum(map(jnp.multiply, cells, weights)).astype(x.dtype)


def _to_map(gradient, kernel, size, placed):
    """Returns the gradient of the map from that of the result."""
    stride, padding, dilation = placed
    weights = _wide(kernel).reshape(-1, gradient.shape[-1])
    to_x = taps.spread(
        lambda tap, gradient: gradient * weights[tap],
        [_wide(gradient)],
        size,
        kernel.shape[:2],
        (stride,) * 2,
        padding,
        (dilation,) * 2,
    )
    return to_x.astype(gradient.dtype)


def _to_kernel(gradient, x, window, placed):
    """Returns the gradient of the kernel from that of the result."""
    cells, wide = _cells_of_taps(_wide(x), window, *placed), _wide(gradient)
    products = [tap * wide for tap in cells]
    # One reduction over all taps reads both maps once; a sum per tap reads them again.
    columns = jax.lax.reduce(
        products,
        [jnp.zeros((), wide.dtype)] * len(products),
        lambda a, b: [u + v for u, v in zip(a, b, strict=True)],
        (0, 1),
    )
    to_kernel = jnp.stack([column.sum(axis=0) for column in columns])
    return to_kernel.reshape(*window, 1, x.shape[-1]).astype(gradient.dtype)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _cells_of_taps(x, window, stride, padding, dilation):
    return taps.shifted(x, window, (stride,) * 2, padding, (dilation,) * 2)
