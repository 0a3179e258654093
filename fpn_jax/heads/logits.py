"""What the classifiers share: the attributes they refuse, and the layer of logits."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors


def check_classifier(num_classes: int, dropout: float) -> None:
    """Refuses what no classifier can be.

    Args:
      num_classes: Number of classes.
      dropout: Share of a layer's inputs that training drops.

    Raises:
      InputError: There are fewer than 2 classes, or the share lies outside [0, 1).
    """
    errors.at_least("num_classes", num_classes, 2, whole=True)
    errors.within("dropout", dropout, 0, 1, open_high=True)


def check_levels(levels: tuple[int, ...] | None) -> None:
    """Refuses to read no level at all.

    Args:
      levels: Levels to read, or None for a head's default.

    Raises:
      InputError: There is none.
    """
    if levels is not None and not levels:
        raise errors.InputError("levels are (); the head needs at least one, or None")


def logits_layer(num_classes: int, dtype: jnp.dtype, name: str = "logits") -> nn.Dense:
    """Makes a fully connected layer that computes in `dtype` and returns float32.

    Args:
      num_classes: Number of classes.
      dtype: Type of its inputs and of the kernel it multiplies them with.
      name: The layer's name among its parent's parameters.
    """

    def dot_general(*args, **kwargs):
        # Rounding logits to bfloat16 would leave the loss two or three digits.
        return jax.lax.dot_general(
            *args, **kwargs | {"preferred_element_type": jnp.float32}
        )

    return nn.Dense(num_classes, dtype=dtype, dot_general=dot_general, name=name)
