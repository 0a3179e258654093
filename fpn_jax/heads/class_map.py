"""Heads for segmentation that read one map, with and without an auxiliary loss."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from fpn_jax import errors
from fpn_jax.layers.conv import LECUN_UNIFORM, ConvNorm, conv
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.pyramid import Pyramid, select_levels


class ClassMap(nn.Module):
    """The class of every cell of one map: convolution, dropout, 1 × 1 convolution.

    The head of PSPNet, DeepLab v3+ and U-Net. The task resizes the logits to the image.

    Attributes:
      num_mask_classes: Number of classes, 2 or more.
      width: Channels of the convolution before the last one; 0 omits it.
      kernel_size: Height and width of that convolution, in cells; odd.
      last_kernel_size: Height and width of the last convolution, in cells; odd.
      dropout: Share of the channels that training drops before the last convolution,
        in [0, 1).
      level: Level to read; None reads the finest that is given.
      norm: Normalization of the convolution, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and logits are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"mask_logits"})

    num_mask_classes: int
    width: int = 0
    kernel_size: int = 3
    last_kernel_size: int = 1
    dropout: float = 0.0
    level: int | None = None
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        check_class_map(self.num_mask_classes, self.dropout)
        errors.at_least("width", self.width, 0, whole=True)
        for name in ("kernel_size", "last_kernel_size"):
            size = getattr(self, name)
            errors.at_least(name, size, 1, whole=True)
            if size % 2 == 0:
                raise errors.InputError(f"{name} is {size}; it must be odd")
        if self.width:
            check_norm(self.norm, self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `{"mask_logits": [B, h, w, num_mask_classes] float32}`.

        Args:
          pyramid: Maps of any size.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: `level` is missing.
        """
        level = min(pyramid) if self.level is None else self.level
        x = select_levels(pyramid, (level,), "the head")[level]
        return {"mask_logits": self._logits(x, "", self.width, train)}

    def _logits(self, x: jax.Array, prefix: str, width: int, train: bool) -> jax.Array:
        """Returns the logits of every cell; `prefix` begins the names of the layers."""
        if width:
            numerics = Numerics(self.dtype, self.axis_name, self.norm)
            hidden = ConvNorm(
                width, self.kernel_size, numerics=numerics, name=f"{prefix}hidden"
            )
            x = nn.relu(hidden(x, train=train))
        last = f"{prefix}logits", self.last_kernel_size
        return class_logits(x, self.num_mask_classes, self.dropout, train, *last)


class AuxiliaryClassMap(ClassMap):
    """The class of every cell of the coarsest map, and again of the finest one.

    The second logits have a loss of their own, which trains the layers before the
    coarsest map (deep supervision), "Pyramid Scene Parsing Network", arXiv 1612.01105,
    section 3.3. They read the finest level that is given, through a convolution of a
    quarter of its channels.

    Differs from the paper: the finer map is a level of the pyramid that the neck passes
    on, not the last but one stage of a dilated network.

    Attributes:
      num_mask_classes: Number of classes, 2 or more.
      width: Channels of the convolution before the last one; 0 omits it.
      kernel_size: Height and width of the convolutions before the last ones; odd.
      last_kernel_size: Height and width of the last convolutions, in cells; odd.
      dropout: Share of the channels that training drops before the last convolutions,
        in [0, 1).
      level: Level of the first logits; None reads the coarsest that is given.
      norm: Normalization of the convolutions, one of `fpn_jax.layers.norm.NORMS`.
      dtype: Type to compute in; parameters and logits are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    outputs: ClassVar[frozenset[str]] = frozenset({"mask_logits", "auxiliary_logits"})

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> dict[str, jax.Array]:
        """Returns `mask_logits`, and `auxiliary_logits` of the finest level.

        Args:
          pyramid: Maps of two levels or more.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          InputError: There is one level.
        """
        level = max(pyramid) if self.level is None else self.level
        finest = min(pyramid)
        x = select_levels(pyramid, (level,), "the head")[level]
        if finest == level:
            raise errors.InputError(
                f"the auxiliary logits need a level finer than {level}; set "
                "neck.kept_levels"
            )
        finer = pyramid[finest]
        width = max(1, finer.shape[-1] // 4)
        return {
            "mask_logits": self._logits(x, "", self.width, train),
            "auxiliary_logits": self._logits(finer, "auxiliary_", width, train),
        }


def check_class_map(num_mask_classes: int, dropout: float) -> None:
    """Refuses arguments that no head of segmentation takes.

    Args:
      num_mask_classes: Number of classes.
      dropout: Share of the channels that training drops.

    Raises:
      InputError: There are fewer than 2 classes, or the share is outside [0, 1).
    """
    errors.at_least("num_mask_classes", num_mask_classes, 2, whole=True)
    errors.within("dropout", dropout, 0, 1, open_high=True)


def class_logits(
    x: jax.Array,
    num_classes: int,
    dropout: float,
    train: bool,
    name: str,
    kernel_size: int = 1,
) -> jax.Array:
    """Drops channels in training, and computes logits in float32.

    Call it inside of a compact method.

    Args:
      x: Map, `[B, H, W, C]`.
      num_classes: Number of classes.
      dropout: Share of the channels that training drops.
      train: Whether dropout is active.
      name: Name of the last convolution among its parent's parameters.
      kernel_size: Height and width of that convolution, in cells; odd.
    """
    # All cells of a channel are dropped together: neighbours would reveal a single one.
    x = nn.Dropout(dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    last = conv(
        num_classes,
        kernel_size,
        dtype=jnp.float32,
        name=name,
        use_bias=True,
        kernel_init=LECUN_UNIFORM,
    )
    return last(x.astype(jnp.float32))
