"""Names of ResNets."""

TORCHVISION = (
    ("backbone/stem/conv", "conv1"),
    ("backbone/stem/norm", "bn1"),
    ("backbone/stage{i}/block{j}/conv{k}", "layer{i}.{j}.conv{k}"),
    ("backbone/stage{i}/block{j}/norm{k}", "layer{i}.{j}.bn{k}"),
    ("backbone/stage{i}/block{j}/downsample/conv", "layer{i}.{j}.downsample.0"),
    ("backbone/stage{i}/block{j}/downsample/norm", "layer{i}.{j}.downsample.1"),
    ("head/logits", "fc"),
)
"""Names in torchvision and timm."""
