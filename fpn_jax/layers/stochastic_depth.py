"""Stochastic depth: Deep Networks with Stochastic Depth, arXiv 1603.09382."""

import jax
from flax import linen as nn

from fpn_jax import errors


class StochasticDepth(nn.Module):
    """Drops the residual branch of randomly chosen examples in training.

    The branches of the other examples are divided by `1 - rate`, so that nothing has to
    be scaled outside training. Random keys come from the collection "dropout".

    Attributes:
      rate: Share of the examples whose branch is dropped, in [0, 1).
    """

    rate: float

    def __post_init__(self):
        errors.within("rate", self.rate, 0, 1, open_high=True)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the result of the branch, `[B, …]`, zero for dropped examples.

        Args:
          x: Result of the branch, `[B, …]`.
          train: Whether branches are dropped.
        """
        everything = tuple(range(1, x.ndim))
        drop = nn.Dropout(self.rate, everything, deterministic=not train)
        return drop(x)
