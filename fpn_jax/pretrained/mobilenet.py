"""Names of MobileNets in torchvision's and timm's state dicts."""

NUM_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of MobileNetV2's stages; torchvision numbers them consecutively."""


def _torchvision_block(ours: str, theirs: str, expanded: bool):
    if expanded:
        yield f"{ours}/expand/conv", f"{theirs}.0.0"
        yield f"{ours}/expand/norm", f"{theirs}.0.1"
    yield f"{ours}/depthwise/conv", f"{theirs}.{int(expanded)}.0"
    yield f"{ours}/depthwise/norm", f"{theirs}.{int(expanded)}.1"
    yield f"{ours}/project/conv", f"{theirs}.{1 + expanded}"
    yield f"{ours}/project/norm", f"{theirs}.{2 + expanded}"


def _timm_block(ours: str, theirs: str, expanded: bool):
    if expanded:
        yield f"{ours}/expand/conv", f"{theirs}.conv_pw"
        yield f"{ours}/expand/norm", f"{theirs}.bn1"
    yield f"{ours}/depthwise/conv", f"{theirs}.conv_dw"
    yield f"{ours}/depthwise/norm", f"{theirs}.bn{1 + expanded}"
    yield f"{ours}/project/conv", f"{theirs}.conv_pw{'l' if expanded else ''}"
    yield f"{ours}/project/norm", f"{theirs}.bn{2 + expanded}"


TORCHVISION: tuple[tuple[str, str], ...] = (
    ("backbone/stem/conv", "features.0.0"),
    ("backbone/stem/norm", "features.0.1"),
    *(
        pair
        for stage, num_blocks in enumerate(NUM_BLOCKS, 1)
        for block in range(num_blocks)
        for pair in _torchvision_block(
            f"backbone/stage{stage}/block{block}",
            f"features.{1 + sum(NUM_BLOCKS[: stage - 1]) + block}.conv",
            expanded=stage > 1,
        )
    ),
    ("backbone/top/conv", "features.18.0"),
    ("backbone/top/norm", "features.18.1"),
    ("head/logits", "classifier.1"),
)
"""MobileNetV2 in torchvision."""

TIMM: tuple[tuple[str, str], ...] = (
    ("backbone/stem/conv", "conv_stem"),
    ("backbone/stem/norm", "bn1"),
    *(
        pair
        for stage in range(1, 8)
        for pair in _timm_block(
            f"backbone/stage{stage}/block{{j}}",
            f"blocks.{stage - 1}.{{j}}",
            expanded=stage > 1,
        )
    ),
    ("backbone/top/conv", "conv_head"),
    ("backbone/top/norm", "bn2"),
    ("head/logits", "classifier"),
)
"""MobileNetV2 in timm."""

TIMM_V1: tuple[tuple[str, str], ...] = (
    ("backbone/stem/conv", "conv_stem"),
    ("backbone/stem/norm", "bn1"),
    *(
        (
            f"backbone/stage{stage}/block{{j}}/{ours}",
            f"blocks.{stage - 1}.{{j}}.{theirs}",
        )
        for stage in range(1, 6)
        for ours, theirs in (
            ("depthwise/conv", "conv_dw"),
            ("depthwise/norm", "bn1"),
            ("pointwise/conv", "conv_pw"),
            ("pointwise/norm", "bn2"),
        )
    ),
    ("head/logits", "classifier"),
)
"""MobileNetV1 in timm; torchvision has none."""
