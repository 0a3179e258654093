"""Names of GoogLeNet and Inception v3.

Published weights of both need pixels of mean and deviation 0.5, and padding "paper".
"""

_V1_BLOCK = (
    ("branch1/conv1", "branch1"),
    ("branch2/conv1", "branch2.0"),
    ("branch2/conv2", "branch2.1"),
    ("branch3/conv1", "branch3.0"),
    ("branch3/conv2", "branch3.1"),
    ("branch4/conv1", "branch4.1"),
)
_V1 = (
    ("stem", "conv1"),
    ("stage1/conv1", "conv2"),
    ("stage1/conv2", "conv3"),
    *(
        (f"stage{stage}/block{block}/{ours}", f"inception{stage + 1}{letter}.{theirs}")
        for stage, letters in ((2, "ab"), (3, "abcde"), (4, "ab"))
        for block, letter in enumerate(letters)
        for ours, theirs in _V1_BLOCK
    ),
)

_SQUARE = (
    ("branch1/conv1", "branch1x1"),
    ("branch2/conv{k}", "branch5x5_{k}"),
    ("branch3/conv{k}", "branch3x3dbl_{k}"),
    ("branch4/conv1", "branch_pool"),
)
_FACTORIZED = (
    ("branch1/conv1", "branch1x1"),
    ("branch2/conv{k}", "branch7x7_{k}"),
    ("branch3/conv{k}", "branch7x7dbl_{k}"),
    ("branch4/conv1", "branch_pool"),
)
_EXPANDED = (
    ("branch1/conv1", "branch1x1"),
    ("branch2/conv{k}", "branch3x3_{k}"),
    ("branch2_fork1/conv1", "branch3x3_2a"),
    ("branch2_fork2/conv1", "branch3x3_2b"),
    ("branch3/conv{k}", "branch3x3dbl_{k}"),
    ("branch3_fork1/conv1", "branch3x3dbl_3a"),
    ("branch3_fork2/conv1", "branch3x3dbl_3b"),
    ("branch4/conv1", "branch_pool"),
)
_HALVING3 = (("branch1/conv1", "branch3x3"), ("branch2/conv{k}", "branch3x3dbl_{k}"))
_HALVING4 = (
    ("branch1/conv{k}", "branch3x3_{k}"),
    ("branch2/conv{k}", "branch7x7x3_{k}"),
)
_V3_STAGES = {
    2: {"b": _SQUARE, "c": _SQUARE, "d": _SQUARE},
    3: {"a": _HALVING3} | {letter: _FACTORIZED for letter in "bcde"},
    4: {"a": _HALVING4, "b": _EXPANDED, "c": _EXPANDED},
}
_V3 = (
    ("stem/conv1", "Conv2d_1a_3x3"),
    ("stem/conv2", "Conv2d_2a_3x3"),
    ("stem/conv3", "Conv2d_2b_3x3"),
    ("stage1/conv1", "Conv2d_3b_1x1"),
    ("stage1/conv2", "Conv2d_4a_3x3"),
    *(
        (f"stage{stage}/block{block}/{ours}", f"Mixed_{stage + 3}{letter}.{theirs}")
        for stage, blocks in _V3_STAGES.items()
        for block, (letter, names) in enumerate(blocks.items())
        for ours, theirs in names
    ),
)


def _with_parts(names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of convolutions, of normalizations, and of the head."""
    return (
        *((f"backbone/{ours}/conv", f"{theirs}.conv") for ours, theirs in names),
        *((f"backbone/{ours}/norm", f"{theirs}.bn") for ours, theirs in names),
        ("head/logits", "fc"),
    )


TORCHVISION_V1 = _with_parts(_V1)
"""torchvision's names of GoogLeNet."""

TORCHVISION_V3 = _with_parts(_V3)
"""Names of Inception v3 in torchvision and timm."""

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Prefixes of the names of auxiliary classifiers."""
