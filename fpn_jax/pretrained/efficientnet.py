"""Names of EfficientNets in torchvision's and timm's state dicts."""

EXPAND = (("expand/conv", "block.0.0"), ("expand/norm", "block.0.1"))


def _torchvision_block(first: int) -> tuple[tuple[str, str], ...]:
    """Returns the names of the layers after the expansion; `first` is their index."""
    return (
        ("depthwise/conv", f"block.{first}.0"),
        ("depthwise/norm", f"block.{first}.1"),
        ("squeeze_excite/squeeze", f"block.{first + 1}.fc1"),
        ("squeeze_excite/excite", f"block.{first + 1}.fc2"),
        ("project/conv", f"block.{first + 2}.0"),
        ("project/norm", f"block.{first + 2}.1"),
    )


TIMM_SQUEEZE = (
    ("squeeze_excite/squeeze", "se.conv_reduce"),
    ("squeeze_excite/excite", "se.conv_expand"),
)
TIMM_SEPARABLE = (
    ("depthwise/conv", "conv_dw"),
    ("depthwise/norm", "bn1"),
    *TIMM_SQUEEZE,
    ("project/conv", "conv_pw"),
    ("project/norm", "bn2"),
)
TIMM_INVERTED = (
    ("expand/conv", "conv_pw"),
    ("expand/norm", "bn1"),
    ("depthwise/conv", "conv_dw"),
    ("depthwise/norm", "bn2"),
    *TIMM_SQUEEZE,
    ("project/conv", "conv_pwl"),
    ("project/norm", "bn3"),
)

TORCHVISION: tuple[tuple[str, str], ...] = (
    ("backbone/stem/conv", "features.0.0"),
    ("backbone/stem/norm", "features.0.1"),
    *(
        (
            f"backbone/stage{stage}/block{{j}}/{ours}",
            f"features.{stage}.{{j}}.{theirs}",
        )
        for stage in range(1, 8)
        for ours, theirs in (
            _torchvision_block(0) if stage == 1 else EXPAND + _torchvision_block(1)
        )
    ),
    ("backbone/top/conv", "features.8.0"),
    ("backbone/top/norm", "features.8.1"),
    ("head/logits", "classifier.1"),
)
"""EfficientNet-B0 to B7 in torchvision."""

TIMM: tuple[tuple[str, str], ...] = (
    ("backbone/stem/conv", "conv_stem"),
    ("backbone/stem/norm", "bn1"),
    *(
        (
            f"backbone/stage{stage}/block{{j}}/{ours}",
            f"blocks.{stage - 1}.{{j}}.{theirs}",
        )
        for stage in range(1, 8)
        for ours, theirs in (TIMM_SEPARABLE if stage == 1 else TIMM_INVERTED)
    ),
    ("backbone/top/conv", "conv_head"),
    ("backbone/top/norm", "bn2"),
    ("head/logits", "classifier"),
)
"""EfficientNet-B0 to B7 in timm, including `tf_`, which needs padding "same"."""
