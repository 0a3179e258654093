"""Checks of arguments that classifiers share, and their last layer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors


def check_classifier(num_classes: int, dropout: float) -> None:
    """Refuses arguments that no classifier takes.

    Args:
      num_classes: Number of classes.
      dropout: Share of the inputs of a layer that training drops.

    Raises:
      InputError: There are fewer than 2 classes, or the share is outside [0, 1).
    """
    errors.at_least("num_classes", num_classes, 2, whole=True)
    errors.within("dropout", dropout, 0, 1, open_high=True)


def logits_layer(num_classes: int, dtype: jnp.dtype, name: str = "logits") -> nn.Dense:
    """Makes a fully connected layer that computes in `dtype` and returns float32.

    Args:
      num_classes: Number of classes.
      dtype: Type of the inputs and of the kernel in the product.
      name: The layer's name among its parent's parameters.
    """

    def dot_general(*args, **kwargs):
        # With logits in bfloat16, the loss would have two or three digits.
        return jax.lax.dot_general(
            *args, **kwargs | {"preferred_element_type": jnp.float32}
        )

    return nn.Dense(num_classes, dtype=dtype, dot_general=dot_general, name=name)
