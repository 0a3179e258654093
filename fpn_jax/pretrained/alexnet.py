"""Names of AlexNet."""

TORCHVISION = (
    ("backbone/stem", "features.0"),
    ("backbone/stage1/conv1", "features.3"),
    ("backbone/stage2/conv1", "features.6"),
    ("backbone/stage2/conv2", "features.8"),
    ("backbone/stage2/conv3", "features.10"),
    ("head/hidden1", "classifier.1", (256, 6, 6)),
    ("head/hidden2", "classifier.4"),
    ("head/logits", "classifier.6"),
)
"""torchvision's names."""
