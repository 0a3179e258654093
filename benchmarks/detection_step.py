"""Our train step of RetinaNet compared with torchvision's, in turns.

    python -m benchmarks.detection_step [--cases=retinanet] [--repeats=7]

The peer is `retinanet_resnet50_fpn` without its transform, which resizes images; it
trains its batch normalization, as ours does. Nothing is timed before the numbers of
parameters and FLOPs agree. Memory and contenders are as in `benchmarks.train_step`.
"""

from typing import NamedTuple

from benchmarks import train_step


class Case(NamedTuple):
    """A batch that a CPU can train.

    Attributes:
      images: Images per step.
      size: Height and width of the images, in pixels.
    """

    images: int
    size: int


CASES = {"retinanet": Case(4, 256)}
CLASSES = 2


def arguments_of(case: Case, dtype: str) -> tuple[str, ...]:
    """Returns the command line of a case.

    Args:
      case: The batch.
      dtype: Name of the type to compute in.
    """
    return (
        "--config=configs/detection.py:retinanet",
        "--config.backbone={'name': 'resnet50', 'levels': (3, 4, 5)}",
        "--config.neck={'name': 'fpn', 'extra_levels': 2, 'extra': 'conv'}",
        "--config.head={'name': 'dense'}",
        "--config.task.anchor_scale=4.0",
        "--config.task.ratios=(0.5, 1.0, 2.0)",
        "--config.task.rounded=True",
        "--config.task.offset=0.0",
        f"--config.data.image_size={case.size}",
        f"--config.data.global_batch_size={case.images}",
        f"--config.model.dtype={dtype}",
        "--config.train.ema_decay=0.0",
        "--config.optimizer=sgd",
        "--config.optimizer.clip_norm=0.0",
        "--config.optimizer.nesterov=True",
    )


class Ours(train_step.Ours):
    """Our train step."""

    arguments_of = staticmethod(arguments_of)


class Theirs(train_step.Theirs):
    """PyTorch's train step."""

    def network(self, case: Case):
        """Returns torchvision's RetinaNet as a function of normalized images."""
        from benchmarks.torch_peers import torch, torchvision

        build = torchvision.models.detection.retinanet_resnet50_fpn
        peer = build(weights=None, weights_backbone=None, num_classes=CLASSES)

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone, self.head = peer.backbone, peer.head

            def forward(self, x):
                features = list(self.backbone(x).values())
                return self.head(features), features

        self._peer = peer
        return Network()

    def labels(self, case: Case):
        """Returns two boxes of each image."""
        low = self._torch.rand(case.images, 2, 2) * case.size / 2
        side = 20 + self._torch.rand(case.images, 2, 2) * case.size / 3
        return self._torch.cat([low, low + side], -1)

    def _loss_of_batch(self, pixels, labels):
        from benchmarks.torch_peers import torch, torchvision

        mean, std = (x.view(1, 3, 1, 1) for x in (self._mean, self._std))
        images = (pixels.float() / 255 - mean) / std
        with torch.autocast(self.device, torch.bfloat16, enabled=self._autocast):
            outputs, features = self.model(images)
        sizes = [tuple(images.shape[-2:])] * len(images)
        listed = torchvision.models.detection.image_list.ImageList(images, sizes)
        anchors = self._peer.anchor_generator(listed, features)
        kinds = torch.tensor([0, 1], device=labels.device)
        targets = [{"boxes": boxes, "labels": kinds} for boxes in labels]
        outputs = {key: value.float() for key, value in outputs.items()}
        return sum(self._peer.compute_loss(targets, outputs, anchors).values())


CONTENDERS = {
    "ours": (Ours, "float32"),
    "ours_bf16": (Ours, "bfloat16"),
    "torch": (Theirs, "float32"),
    "torch_bf16": (Theirs, "bfloat16"),
}
"""Name → train step, and the type that it computes in."""


def main() -> None:
    """Prints the table."""
    description = __doc__.splitlines()[0]
    train_step.run("detection_step", description, CASES, CONTENDERS)


if __name__ == "__main__":
    main()
