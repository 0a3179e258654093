"""Pooling layers by name, with and without learned parameters or randomness.

A layer pools the windows of `[B, H, W, C]` to `[B, H', W', C]`, or, without a window,
the whole map to `[B, C]`. It computes in float32 and returns the input's type.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from fpn_jax import errors
from fpn_jax.layers.conv import LECUN_UNIFORM, conv
from fpn_jax.layers.covariance import CovariancePool
from fpn_jax.ops import pooling, weighted_pooling
from fpn_jax.ops.kernels.padding import Padding
from fpn_jax.ops.kernels.windows import Size, Window, check_size, check_window
from fpn_jax.ops.spatial_pyramid import spatial_pyramid_pool
from fpn_jax.registry import Registry, Spec

LOGIT_LIMIT = 12.0
"""Largest logit of `LIPPool`; the smallest is 0, so weights differ by up to e¹²."""


class Pool(nn.Module):
    """The base of all layers that pool windows.

    A subclass has a method `function(x, *, train)`, where `x` is the map that will be
    pooled. It returns a function of `(x, window, stride, padding)`, like those of
    `fpn_jax.ops.pooling`. One layer may pool several windows with it; they share its
    parameters.

    Attributes:
      window: Height and width of a window, in cells; None pools the whole map.
      stride: Step from one window to the next, in cells; None is the window's size.
      padding: See `fpn_jax.ops.kernels.padding.Padding`.
    """

    window: Window = None
    stride: Size | None = None
    padding: Padding = "valid"

    def __post_init__(self):
        check_window(self.window, self.stride, self.padding)
        super().__post_init__()

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, H', W', C]`; `[B, C]` for the whole map.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether randomness is active.
        """
        pool = self.function(x, train=train)
        return pool(x, self.window, self.stride, self.padding)


class PlainPool(Pool, kw_only=True):
    """A pooling layer without further arguments.

    Attributes:
      pool: Function of `(x, window, stride, padding)`.
    """

    pool: Callable[..., jax.Array]

    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `pool`."""
        return self.pool


class KMaxPool(Pool):
    """The mean of the `k` largest cells: `fpn_jax.ops.pooling.k_max_pool`.

    Attributes:
      k: From 1 to the window's number of cells.
    """

    k: int = 2

    def __post_init__(self):
        errors.at_least("k", self.k, 1, whole=True)
        super().__post_init__()

    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `k_max_pool` with `k`."""
        return functools.partial(pooling.k_max_pool, k=self.k)


class LpPool(Pool):
    """The generalized mean of a fixed exponent: `fpn_jax.ops.pooling.lp_pool`.

    Attributes:
      p: Exponent, positive and finite.
    """

    p: float = 2.0

    def __post_init__(self):
        pooling.check_p(self.p)
        super().__post_init__()

    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `lp_pool` with `p`."""
        return functools.partial(pooling.lp_pool, p=self.p)


class GeMPool(Pool):
    """The generalized mean of a learned exponent (arXiv 1711.02512).

    The parameter `log_p` is the logarithm of the exponent, which therefore stays
    positive. Weight decay pulls it to 0, the average of `|r|`.

    Attributes:
      p: Exponent before training, positive and finite.
      per_channel: Whether every channel has its own exponent.
    """

    p: float = 3.0
    per_channel: bool = False

    def __post_init__(self):
        pooling.check_p(self.p)
        super().__post_init__()

    @nn.compact
    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `lp_pool` with the learned exponent."""
        shape = x.shape[-1:] if self.per_channel else ()
        initial = nn.initializers.constant(math.log(self.p))
        log_p = self.param("log_p", initial, shape, jnp.float32)
        return functools.partial(pooling.lp_pool, p=jnp.exp(log_p))


class MixedPool(Pool):
    """Maximum and average in a fixed or learned ratio (arXiv 1509.08985).

    Attributes:
      max_share: Share `λ` of the maximum, in [0, 1]; for a learned share, the value
        before training, in (0, 1).
      learned: Whether the share is learned, as `λ = σ(max_share_logit)`.
    """

    max_share: float = 0.5
    learned: bool = True

    def __post_init__(self):
        errors.within("max_share", self.max_share, 0, 1)
        if self.learned and self.max_share in (0, 1):
            raise errors.InputError(
                f"max_share is {self.max_share}, where a learned share has no "
                "gradient; start inside (0, 1), or set learned to False"
            )
        super().__post_init__()

    @nn.compact
    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `mixed_pool` with the share."""
        share = self.max_share
        if self.learned:
            initial = nn.initializers.constant(math.log(share / (1 - share)))
            share = nn.sigmoid(self.param("max_share_logit", initial, (), jnp.float32))
        return functools.partial(pooling.mixed_pool, max_share=share)


class StochasticPool(Pool):
    """A cell drawn at random in training, the expectation of the draw otherwise.

    See `fpn_jax.ops.weighted_pooling.stochastic_pool`. Random keys come from the
    collection "dropout".

    Attributes:
      probabilities: "softmax", or "proportional" for maps without negative cells.
    """

    probabilities: str = "softmax"

    def __post_init__(self):
        errors.one_of(
            "probabilities", self.probabilities, weighted_pooling.PROBABILITIES
        )
        super().__post_init__()

    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `stochastic_pool`, in training with a new key for every call."""

        def pool(*args):
            return weighted_pooling.stochastic_pool(
                *args,
                key=self.make_rng("dropout") if train else None,
                probabilities=self.probabilities,
            )

        return pool


class LIPPool(Pool):
    """Local importance pooling (Gao et al., arXiv 1908.04156).

    The weights are `exp(G(x))`. `G` is a 1 × 1 convolution, instance normalization and
    `12 σ(·)`. With a width, a bottleneck comes first: 1 × 1 and 3 × 3 convolutions with
    instance normalization and ReLU, so that a weight depends on the cells around.

    Attributes:
      width: Channels of the bottleneck; None leaves it out.
    """

    width: int | None = None

    def __post_init__(self):
        if self.width is not None:
            errors.at_least("width", self.width, 1, whole=True)
        super().__post_init__()

    @nn.compact
    def function(self, x: jax.Array, *, train: bool) -> Callable[..., jax.Array]:
        """Returns `local_importance_pool` with the network's logits."""

        def layer(y, features, kernel_size, name):
            y = conv(
                features,
                kernel_size,
                dtype=jnp.float32,
                name=f"{name}_conv",
                kernel_init=LECUN_UNIFORM,
            )(y)
            return nn.InstanceNorm(epsilon=1e-5, name=f"{name}_norm")(y)

        y = x.astype(jnp.float32)
        if self.width is not None:
            y = nn.relu(layer(y, self.width, 1, "reduce"))
            y = nn.relu(layer(y, self.width, 3, "spread"))
        logits = LOGIT_LIMIT * nn.sigmoid(layer(y, x.shape[-1], 1, "importance"))
        return functools.partial(weighted_pooling.local_importance_pool, logits=logits)


POOLINGS = {
    "average": functools.partial(PlainPool, pool=pooling.average_pool),
    "covariance": CovariancePool,
    "gem": GeMPool,
    "k_max": KMaxPool,
    "l2": functools.partial(PlainPool, pool=pooling.l2_pool),
    "lip": LIPPool,
    "lp": LpPool,
    "max": functools.partial(PlainPool, pool=pooling.max_pool),
    "median": functools.partial(PlainPool, pool=pooling.median_pool),
    "min": functools.partial(PlainPool, pool=pooling.min_pool),
    "mixed": MixedPool,
    "soft": functools.partial(PlainPool, pool=weighted_pooling.soft_pool),
    "stochastic": StochasticPool,
}
"""Name → constructor. "covariance" is not a `Pool`: it pools whole maps only."""

REGISTRY = Registry("pool", POOLINGS, base=nn.Module, members=("__call__",))
names, accepts, build = REGISTRY.names, REGISTRY.accepts, REGISTRY.build

PLACEMENT = ("window", "stride", "padding")
"""Arguments of a pooling layer that place its windows."""


class SpatialPyramid(nn.Module):
    """Spatial pyramid pooling with any pooling layer; see `spatial_pyramid_pool`.

    All divisions share the parameters of the pooling layer.

    Attributes:
      bins: Height and width of every division of the map; one number for both.
      pool: One of `POOLINGS` that pools windows: its name, or a dict with `name` and
        its own arguments. The windows are the bins.
    """

    bins: Sequence[Size] = (4, 2, 1)
    pool: Spec = "max"

    def __post_init__(self):
        if not self.bins:
            raise errors.InputError("bins are (); give one division or more")
        for size in self.bins:
            check_size("bins", size)
        self.pool = FrozenDict(REGISTRY.spec(self.pool))
        if not isinstance(self._pool(parent=None), Pool):
            raise errors.InputError(
                f"pool is {self.pool['name']!r}, which pools whole maps only; a "
                "spatial pyramid takes a pool of windows"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns `[B, Σ height · width · C]`, whatever the size of the map.

        Args:
          x: Map, `[B, H, W, C]`.
          train: Whether randomness is active.
        """
        pool = self._pool(name="pooling")
        return spatial_pyramid_pool(x, self.bins, pool.function(x, train=train))

    def _pool(self, **given) -> nn.Module:
        return build(self.pool, given, withheld=PLACEMENT)
