"""Names of VGG networks, whose layers are numbered consecutively."""

from collections.abc import Iterator, Sequence

from fpn_jax.backbones import BACKBONES

VARIANTS = tuple(
    f"vgg{depth}{kind}" for depth in (11, 13, 16, 19) for kind in ("", "_bn")
)


def features(stage_sizes: Sequence[int], batch_norm: bool) -> Iterator[tuple[str, str]]:
    """Yields our name and torchvision's of every layer with parameters.

    Args:
      stage_sizes: Number of convolutions of each stage.
      batch_norm: Whether each is followed by batch normalization.
    """
    position = 0
    for stage, num_convs in enumerate(stage_sizes, start=1):
        for index in range(1, num_convs + 1):
            yield f"backbone/stage{stage}/conv{index}", f"features.{position}"
            if batch_norm:
                position += 1
                yield f"backbone/stage{stage}/norm{index}", f"features.{position}"
            # Skip the index of the ReLU in torch's `Sequential`.
            position += 2
        # Skip the index of the pool.
        position += 1


_BACKBONES = {name: tuple(features(**BACKBONES[name].keywords)) for name in VARIANTS}

TORCHVISION = {
    name: (
        *pairs,
        ("head/hidden1", "classifier.0", (512, 7, 7)),
        ("head/hidden2", "classifier.3"),
        ("head/logits", "classifier.6"),
    )
    for name, pairs in _BACKBONES.items()
}
"""Backbone → torchvision's names."""

TIMM = {
    name: (
        *pairs,
        ("head/hidden1", "pre_logits.fc1", (512, 7, 7)),
        ("head/hidden2", "pre_logits.fc2"),
        ("head/logits", "head.fc"),
    )
    for name, pairs in _BACKBONES.items()
}
"""Backbone → timm's names; timm's dense layers are convolutions."""
