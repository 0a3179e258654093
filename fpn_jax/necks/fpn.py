"""Feature Pyramid Networks for Object Detection, arXiv 1612.03144."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from fpn_jax import errors
from fpn_jax.layers import context, upsampling
from fpn_jax.layers.conv import LECUN_UNIFORM, ConvNorm
from fpn_jax.layers.norm import check_norm
from fpn_jax.layers.numerics import Numerics
from fpn_jax.necks.single_scale import SingleScaleNeck
from fpn_jax.ops.pooling import max_pool
from fpn_jax.pyramid import Pyramid, check_levels_given, select_levels
from fpn_jax.registry import Spec

EXTRAS = ("max_pool", "conv", "conv_c5")
CONNECTIONS = ("both", "lateral", "top_down")
MAX_EXTRA_LEVELS = 8


class FPN(SingleScaleNeck):
    """Feature pyramid network: adds upsampled coarser maps to lateral maps.

    `M_l = lateral_l(C_l) + upsample(M_{l+1})` and `P_l = smooth_l(M_l)`, with 1 × 1
    laterals and 3 × 3 smoothing (Lin et al., arXiv 1612.03144). The coarser map is
    upsampled to the size of the lateral map, so any image size works.

    Attributes:
      width: Channels of every level of the result.
      levels: Levels to use; None uses all that are given.
      extra_levels: Number of levels to add beyond the coarsest one.
      extra: How an extra level is made from the level before: "max_pool" takes every
        other cell (the paper's P6); "conv" is a 3 × 3 convolution of stride 2, with a
        ReLU before every further one (P6 and P7 of torchvision's RetinaNet, from P5);
        "conv_c5" is the same from the backbone's coarsest map, C5 (Lin et al., arXiv
        1708.02002).
      upsampling: How a coarser map is resized: one of
        `fpn_jax.layers.upsampling.names()`, or a dict with `name` and its own
        arguments, such as `align_corners` or `kernel_size`. The paper uses "nearest".
        "bed_of_nails", "transposed" and "sub_pixel" double the map, so no level may be
        missing in between.
      context: Block between the coarsest map and its lateral: "none"; "ppm", the
        pyramid pooling module, as in UPerNet (Xiao et al., arXiv 1807.10221); or
        "aspp", with `width` channels. Or a dict with `name` and its own arguments:
        `bins` and `width` of "ppm", `rates` and `dropout` of "aspp". See
        `fpn_jax.layers.context`.
      connections: "both"; or, to see what each is worth, one of the paper's ablations
        (table 1): "lateral" has no top-down path, so nothing is added to a lateral
        map; "top_down" has no lateral maps but the coarsest one.
      smooth: Whether a 3 × 3 convolution smooths every level, as in the paper;
        segmentation_models.pytorch has none.
      norm: Normalization after every convolution, including those of the context:
        "batch", "group" or "none". Convolutions have a bias only with "none".
      dtype: Type to compute in; parameters are float32.
      axis_name: Mapped axis over which batch statistics are averaged in training.
    """

    width: int = 256
    levels: tuple[int, ...] | None = None
    extra_levels: int = 0
    extra: str = "max_pool"
    upsampling: Spec = "nearest"
    context: Spec = "none"
    connections: str = "both"
    smooth: bool = True
    norm: str = "none"
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        errors.at_least("width", self.width, 1, whole=True)
        check_levels_given(self.levels, "FPN")
        errors.within("extra_levels", self.extra_levels, 0, MAX_EXTRA_LEVELS)
        errors.one_of("extra", self.extra, EXTRAS)
        errors.one_of("connections", self.connections, CONNECTIONS)
        if self.extra != "max_pool" and self.extra_levels == 0:
            raise errors.InputError(
                f"extra is {self.extra!r}, but extra_levels is 0; give extra_levels 1 "
                "or more"
            )
        check_norm(self.norm, self.width)
        self.upsampling = FrozenDict(upsampling.REGISTRY.spec(self.upsampling))
        self.context = FrozenDict(context.REGISTRY.spec(self.context))
        # Building both refuses unknown names, arguments and values.
        self._upsampling(parent=None)
        self._context(parent=None)
        super().__post_init__()

    def output_channels(self, channels: dict[int, int]) -> dict[int, int]:
        """Returns level → channels of the result.

        Args:
          channels: Level → channels of the pyramid that is given.

        Raises:
          InputError: A level of `levels` is not given, or the coarsest level has too
            few channels for its context.
        """
        levels = self.levels or tuple(channels)
        missing = sorted(set(levels) - set(channels))
        if missing:
            raise errors.InputError(
                f"FPN needs levels {tuple(levels)}, but the backbone has only "
                f"{tuple(sorted(channels))}"
            )
        top = max(levels)
        # The context refuses a coarsest map with too few channels.
        self._context(parent=None).output_channels(channels[top])
        extra = range(top + 1, top + 1 + self.extra_levels)
        return {level: self.width for level in (*sorted(levels), *extra)}

    @nn.compact
    def __call__(self, pyramid: Pyramid, *, train: bool) -> Pyramid:
        """Returns maps of `width` channels: the used levels, then the extra levels.

        Args:
          pyramid: Maps of any widths.
          train: Whether batch statistics and dropout are those of training.

        Raises:
          ValueError: A level of `levels` is missing.
        """
        pyramid = select_levels(pyramid, self.levels or tuple(pyramid), "FPN")
        coarsest = max(pyramid)
        given = pyramid[coarsest]
        # A class from outside the package is named without its module.
        block = self._context(name=self.context["name"].rpartition(":")[2])
        pyramid[coarsest] = block(pyramid[coarsest], train=train)
        merged = None
        result = {}
        for level, x in reversed(pyramid.items()):
            parts = []
            if level == coarsest or self.connections != "top_down":
                parts.append(self._conv(f"lateral{level}", 1)(x, train=train))
            if level != coarsest and self.connections != "lateral":
                upsample = self._upsampling(name=f"upsample{level}")
                parts.append(upsample(merged, x.shape[1:3]))
            merged = sum(parts[1:], start=parts[0])
            result[level] = merged
            if self.smooth:
                result[level] = self._conv(f"smooth{level}", 3)(merged, train=train)
        result = dict(sorted(result.items()))
        first = given if self.extra == "conv_c5" else result[coarsest]
        return self._add_extra_levels(result, first, train)

    def _add_extra_levels(self, pyramid: Pyramid, x: jax.Array, train: bool) -> Pyramid:
        top = max(pyramid)
        for level in range(top + 1, top + 1 + self.extra_levels):
            if self.extra == "max_pool":
                x = max_pool(x, window=1, stride=2)
            else:
                x = x if level == top + 1 else nn.relu(x)
                x = self._conv(f"extra{level}", 3, stride=2)(x, train=train)
            pyramid[level] = x
        return pyramid

    def _context(self, **given) -> nn.Module:
        given |= {"norm": self.norm, "dtype": self.dtype, "axis_name": self.axis_name}
        if self.context["name"] == "aspp":
            # For "aspp", `width` means the width of the result; for "ppm", of a grid.
            given["width"] = self.width
        return context.build(self.context, given)

    def _upsampling(self, **given) -> nn.Module:
        return upsampling.build(
            self.upsampling, given | {"dtype": self.dtype}, withheld=("features",)
        )

    def _conv(self, name: str, kernel_size: int, stride: int = 1) -> ConvNorm:
        return ConvNorm(
            self.width,
            kernel_size,
            stride,
            kernel_init=LECUN_UNIFORM,
            numerics=Numerics(self.dtype, self.axis_name, self.norm),
            name=name,
        )
