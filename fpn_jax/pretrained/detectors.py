"""Names of torchvision's detectors with a ResNet and a feature pyramid."""

from fpn_jax.pretrained import resnet
from fpn_jax.pretrained.convert import Pair


def _backbone() -> tuple[Pair, ...]:
    pairs = [pair for pair in resnet.TORCHVISION if pair[0].startswith("backbone/")]
    return tuple((ours, f"backbone.body.{theirs}") for ours, theirs, *_ in pairs)


def _neck() -> tuple[Pair, ...]:
    pairs: list[Pair] = []
    for place, level in enumerate((3, 4, 5)):
        pairs += [
            (f"neck/lateral{level}/conv", f"backbone.fpn.inner_blocks.{place}.0"),
            (f"neck/smooth{level}/conv", f"backbone.fpn.layer_blocks.{place}.0"),
        ]
    for level in (6, 7):
        pairs.append((f"neck/extra{level}/conv", f"backbone.fpn.extra_blocks.p{level}"))
    return tuple(pairs)


def _towers(step: int, norm: str | None) -> tuple[Pair, ...]:
    """Returns the names of both towers.

    Args:
      step: Distance of the numbers of two convolutions; below 2, a convolution is part
        of a block, in which it has the number 0.
      norm: Number of a normalization after its convolution, or None.
    """
    pairs: list[Pair] = []
    for ours, theirs in (("class", "classification"), ("box", "regression")):
        for place in range(4):
            prefix = f"head.{theirs}_head.conv.{step * place if step > 1 else place}"
            layer = f"head/{ours}_tower/conv{place + 1}"
            pairs.append((f"{layer}/conv", prefix if step > 1 else f"{prefix}.0"))
            if norm == "inside":
                pairs.append((f"{layer}/norm", f"{prefix}.1"))
            if norm == "after":
                after = f"head.{theirs}_head.conv.{step * place + 1}"
                pairs.append((f"{layer}/norm", after))
    return tuple(pairs)


_CLASSES = ("head/classes", "head.classification_head.cls_logits")
_BOXES = "head.regression_head.bbox_reg"

RETINANET = (
    *_backbone(),
    *_neck(),
    *_towers(1, None),
    _CLASSES,
    ("head/boxes", _BOXES),
)
"""`retinanet_resnet50_fpn`: P6 from P5, no normalization in the head."""

RETINANET_V2 = (
    *_backbone(),
    *_neck(),
    *_towers(1, "inside"),
    _CLASSES,
    ("head/boxes", _BOXES),
)
"""`retinanet_resnet50_fpn_v2`: P6 from C5, group normalization in the head."""

FCOS = (
    *_backbone(),
    *_neck(),
    *_towers(3, "after"),
    _CLASSES,
    ("head/distances", _BOXES),
    ("head/centerness", "head.regression_head.bbox_ctrness"),
)
"""`fcos_resnet50_fpn`: P6 from P5, biases before the group normalization."""

DETECTORS = {
    "retinanet_resnet50_fpn": RETINANET,
    "retinanet_resnet50_fpn_v2": RETINANET_V2,
    "fcos_resnet50_fpn": FCOS,
}
"""Name in torchvision → name map."""
