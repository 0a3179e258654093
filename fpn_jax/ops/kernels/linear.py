"""Linear maps that have a transpose of their own.

`jax.custom_vjp` gives a function a fast gradient, but then refuses forward-mode
differentiation. A linear map is its own derivative, so a primitive that knows the map
and its transpose can be differentiated in both modes, any number of times.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Linear = Callable[..., jax.Array]
"""Function of `(x, *residuals)`, linear in `x`."""


def linear_map(
    forward: Linear, transpose: Linear, x: jax.Array, *residuals: jax.Array
) -> jax.Array:
    """Returns `forward(x, *residuals)`, whose gradient is computed by `transpose`.

    Args:
      forward: Linear in its first argument.
      transpose: Its transpose: a function of `(y, *residuals)`, linear in `y`, such
        that `<y, forward(x)> = <transpose(y), x>`.
      x: The array to which the map is applied, of the type of the result.
      *residuals: Other arrays on which the map depends. A derivative with respect to
        them is computed from `forward`.

    Example:
      >>> twice = lambda x: linear_map(lambda x: 2 * x, lambda y: 2 * y, x)
      >>> value, slope = jax.jvp(twice, (3.0,), (1.0,))
      >>> float(value), float(slope)
      (6.0, 2.0)
    """
    arrays = align_varying(x, *residuals)
    return _linear_map.bind(*arrays, forward=forward, transpose=transpose)


def align_varying(*arrays: jax.Array) -> list[jax.Array]:
    """Returns arrays that vary over the same axes of a `jax.shard_map`.

    Outside of `jax.shard_map` the arrays are returned unchanged.

    Args:
      *arrays: The arrays.
    """
    varying = [_varying_axes(array) for array in arrays]
    union = frozenset().union(*varying)
    return [
        jax.lax.pcast(array, tuple(sorted(union - own)), to="varying")
        if union - own
        else array
        for array, own in zip(arrays, varying, strict=True)
    ]


def _varying_axes(array: jax.Array) -> frozenset[str]:
    kind = jax.typeof(array)
    # JAX has renamed the attribute.
    manual = getattr(kind, "manual_axis_type", None)
    return frozenset(kind.vma if manual is None else manual.varying)


_linear_map = Primitive("fpn_jax_linear_map")


def _call(*arrays: jax.Array, forward: Linear, transpose: Linear) -> jax.Array:
    return forward(*arrays)


def _abstract(*avals: Any, forward: Linear, transpose: Linear) -> Any:
    (aval,) = jax.make_jaxpr(forward)(*avals).out_avals
    return aval


def _jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    forward: Linear,
    transpose: Linear,
) -> tuple[Any, Any]:
    x, *residuals = primals
    out = linear_map(forward, transpose, *primals)
    parts = []
    if not isinstance(tangents[0], ad.Zero):
        parts.append(linear_map(forward, transpose, tangents[0], *residuals))
    moving = [i for i, dot in enumerate(tangents[1:]) if not isinstance(dot, ad.Zero)]
    if moving:

        def of_moving(*values: jax.Array) -> jax.Array:
            changed = dict(zip(moving, values, strict=True))
            return forward(x, *(changed.get(i, r) for i, r in enumerate(residuals)))

        at = tuple(residuals[i] for i in moving)
        parts.append(jax.jvp(of_moving, at, tuple(tangents[1 + i] for i in moving))[1])
    return out, sum(parts[1:], parts[0]) if parts else ad.Zero.from_primal_value(out)


def _transpose(
    cotangent: Any, x: Any, *residuals: Any, forward: Linear, transpose: Linear
) -> list[Any]:
    others = [None] * len(residuals)
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(x.aval), *others]
    return [linear_map(transpose, forward, cotangent, *residuals), *others]


def _batch(
    arrays: Sequence[Any], axes: Sequence[Any], *, forward: Linear, transpose: Linear
) -> tuple[Any, int]:
    (size,) = {
        array.shape[axis]
        for array, axis in zip(arrays, axes, strict=True)
        if axis is not None
    }
    # The result has a batch axis, so its transpose needs one in `x`, too.
    x = batching.bdim_at_front(arrays[0], axes[0], size)
    in_axes = (0, *axes[1:])
    batched = [jax.vmap(f, in_axes, axis_size=size) for f in (forward, transpose)]
    return linear_map(*batched, x, *arrays[1:]), 0


_linear_map.def_impl(_call)
_linear_map.def_abstract_eval(_abstract)
mlir.register_lowering(_linear_map, mlir.lower_fun(_call, multiple_results=False))
ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
