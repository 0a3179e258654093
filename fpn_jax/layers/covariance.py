"""Global covariance pooling as a layer."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.conv import conv
from fpn_jax.ops import covariance

METHODS = ("power", "log", "newton_schulz")


class CovariancePool(nn.Module):
    """The upper triangle of the transformed covariance of a map's channels.

    MPN-COV (Li et al., arXiv 1703.08050) with "power", the log-Euclidean map of DeepO2P
    (Ionescu et al., arXiv 1509.07838) with "log", iSQRT-COV (Li et al., arXiv
    1712.01034), which needs no eigenvalues, with "newton_schulz". The layer computes in
    float32. Differs from MPN-COV and iSQRT-COV: neither normalization nor ReLU follows
    the convolution that reduces the channels.

    Attributes:
      width: Channels `C` to which a 1 × 1 convolution without bias reduces the map;
        None leaves the map unchanged.
      method: "power", "log" or "newton_schulz".
      power: Exponent of the eigenvalues, above 0; for "power" only.
      iterations: Steps, 1 to 20; for "newton_schulz" only.
      epsilon: Above 0; None takes the default of the method: 1e-5 for "power", which is
        a straight line below that eigenvalue; 1e-3 for "log", which adds it to every
        eigenvalue; 1e-6 for "newton_schulz", which adds it to the trace.
      truncation: Eigenvalues up to this share of the largest count as 0, in [0, 1); for
        "power" and "log" only.
      centre: Whether the mean of every channel is subtracted first.
    """

    width: int | None = None
    method: str = "power"
    power: float = 0.5
    iterations: int = 5
    epsilon: float | None = None
    truncation: float = 0.0
    centre: bool = True

    def __post_init__(self):
        if self.width is not None:
            errors.at_least("width", self.width, 1, whole=True)
        errors.one_of("method", self.method, METHODS)
        unused = {
            "power": ("iterations",),
            "log": ("power", "iterations"),
            "newton_schulz": ("power", "truncation"),
        }
        for name in unused[self.method]:
            default = getattr(type(self), name)
            if getattr(self, name) != default:
                raise errors.InputError(
                    f"{name} is {getattr(self, name)}, but method {self.method!r} does "
                    f"not use it; leave it at {default}, or choose another method"
                )
        epsilon = 1.0 if self.epsilon is None else self.epsilon
        covariance.check_spectrum(
            power=self.power, epsilon=epsilon, truncation=self.truncation
        )
        errors.within("iterations", self.iterations, 1, covariance.MAX_ITERATIONS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, C (C + 1) / 2]`, of the input's type.

        Args:
          x: Map, `[B, H, W, C']`.
          train: Makes no difference here.
        """
        dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.width is not None:
            x = conv(self.width, 1, dtype=x.dtype, name="reduce")(x)
        x = covariance.covariance_pool(x, self._transform(), self.centre)
        return x.astype(dtype)

    def _transform(self) -> Callable[[jax.Array], jax.Array]:
        epsilon = {} if self.epsilon is None else {"epsilon": self.epsilon}
        if self.method == "newton_schulz":
            return functools.partial(
                covariance.matrix_sqrt_newton_schulz,
                iterations=self.iterations,
                **epsilon,
            )
        epsilon["truncation"] = self.truncation
        if self.method == "log":
            return functools.partial(covariance.matrix_log, **epsilon)
        return functools.partial(covariance.matrix_power, power=self.power, **epsilon)
