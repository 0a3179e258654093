"""Our train step of each network for segmentation compared with PyTorch's, in turns.

    python -m benchmarks.segmentation_step [--cases=fpn,…] [--repeats=7]

The peers are the networks of segmentation_models.pytorch (extra `parity`), with a
ResNet-18, SGD and cross-entropy. Nothing is timed before the numbers of parameters and
FLOPs agree. Memory and contenders are as in `benchmarks.train_step`.
"""

from typing import NamedTuple

from benchmarks import train_step


class Case(NamedTuple):
    """A network, and a batch that a CPU can train.

    Attributes:
      network: Name of the network.
      images: Images per step.
      size: Height and width of the images, in pixels.
    """

    network: str
    images: int
    size: int


CASES = {
    name: Case(name, 8, 128) for name in ("fpn", "pspnet", "deeplab_v3_plus", "unet")
}
HEAD = "--config.head={'name': 'class_map', "
NETWORKS = {
    "fpn": (
        "--config.backbone.levels=(2,3,4,5)",
        "--config.neck={'name': 'fpn', 'width': 256, 'smooth': False}",
        "--config.head={'name': 'semantic_fpn', 'width': 128, 'dropout': 0.2, "
        "'align_corners': True}",
    ),
    "pspnet": (
        "--config.backbone.levels=(3,)",
        "--config.neck={'name': 'ppm'}",
        f"{HEAD}'width': 512, 'kernel_size': 1, 'last_kernel_size': 3, "
        "'dropout': 0.2}",
    ),
    "deeplab_v3_plus": (
        "--config.backbone.levels=(2,4)",
        "--config.backbone.output_stride=16",
        "--config.neck={'name': 'deeplab', 'width': 256, 'rates': (12, 24, 36), "
        "'separable': True, 'context_convolutions': 1, 'convolutions': 1, "
        "'align_corners': True}",
        f"{HEAD}}}",
    ),
    "unet": (
        "--config.backbone.levels=(1,2,3,4,5)",
        "--config.neck={'name': 'unet', 'widths': (256, 128, 64, 32, 16), "
        "'finer_levels': 1}",
        f"{HEAD}'last_kernel_size': 3}}",
    ),
}
"""Name → keys that make the peer's network."""


def arguments_of(case: Case, dtype: str) -> tuple[str, ...]:
    """Returns the command line of a case.

    Args:
      case: The network and the batch.
      dtype: Name of the type to compute in.
    """
    return (
        "--config=configs/segmentation.py",
        "--config.backbone.width=64",
        *NETWORKS[case.network],
        f"--config.data.image_size={case.size}",
        f"--config.data.global_batch_size={case.images}",
        f"--config.model.dtype={dtype}",
        "--config.task.loss_weights={'cross_entropy': 1.0}",
        "--config.task.align_corners=True",
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
        """Returns the network of segmentation_models.pytorch."""
        # torchvision, which smp imports, may not load beside this torch; the tests of
        # parity know what to do.
        from tests.parity.peers import smp

        make = {
            "fpn": smp.FPN,
            "pspnet": smp.PSPNet,
            "deeplab_v3_plus": smp.DeepLabV3Plus,
            "unet": smp.Unet,
        }[case.network]
        model = make("resnet18", encoder_weights=None, classes=2)
        if case.network == "pspnet":
            # The network ends at stride 8; these stages are made but never called.
            del model.encoder.layer3, model.encoder.layer4
        return model

    def labels(self, case: Case):
        """Returns masks of two classes."""
        return self._torch.randint(0, 2, (case.images, case.size, case.size))


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
    train_step.run("segmentation_step", description, CASES, CONTENDERS)


if __name__ == "__main__":
    main()
