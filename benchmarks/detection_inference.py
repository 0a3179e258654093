"""Our RetinaNet compared with torchvision's in prediction, in turns.

    python -m benchmarks.detection_inference [--size=384] [--repeats=9]

From uint8 pixels on the device to at most 300 boxes an image, suppression included:
`retinanet_resnet50_fpn` with random weights, whose head is scaled so that a few
hundred boxes reach the threshold of the score. Ours has its weights. Nothing is timed
before both find the same boxes. The peer runs in inference mode, channels-last, without
its transform, which resizes images. Needs a torchvision whose compiled operators load.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import stepping, timing
from benchmarks.detection_step import CASES, CLASSES, arguments_of

IMAGES = (1, 8)
LOGIT_MEAN, LOGIT_SPREAD, DELTA_SPREAD = -5.0, 1.0, 0.3
"""Of the outputs of the head; about 2 % of the scores then reach the threshold."""

POSTPROCESSING = (
    "--config.task.by_class=True",
    "--config.task.score_threshold=0.05",
    "--config.task.iou_threshold=0.5",
    "--config.task.candidates=1000",
    "--config.task.max_detections=300",
)
"""torchvision's defaults."""


class Theirs:
    """torchvision's RetinaNet.

    Args:
      pixels: uint8 `[B, H, W, 3]`, by which the head is scaled.
    """

    def __init__(self, pixels: np.ndarray):
        from benchmarks.torch_peers import torch, torchvision

        if not torchvision.extension._has_ops():
            sys.exit("the compiled operators of torchvision do not load")
        self._torch, self._detection = torch, torchvision.models.detection
        torch.manual_seed(0)
        build = self._detection.retinanet_resnet50_fpn
        peer = build(weights=None, weights_backbone=None, num_classes=CLASSES)
        self._peer = peer.eval().to(memory_format=torch.channels_last)
        self._mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
        self._std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
        with torch.no_grad():
            self._scale(self._outputs(self._images(pixels))[0])

    def _scale(self, outputs: dict[str, Any]) -> None:
        """Gives the outputs of the head their mean and spread."""
        head = self._peer.head
        logits, deltas = outputs["cls_logits"], outputs["bbox_regression"]
        last = head.classification_head.cls_logits
        factor = LOGIT_SPREAD / logits.std()
        mean = (logits.mean() - last.bias.mean()) * factor
        last.weight.mul_(factor)
        last.bias.fill_(LOGIT_MEAN - float(mean))
        head.regression_head.bbox_reg.weight.mul_(DELTA_SPREAD / deltas.std())

    def save(self, path: str) -> None:
        """Writes the weights."""
        self._torch.save(self._peer.state_dict(), path)

    def predictor(self, pixels: np.ndarray) -> Callable[[], list[dict[str, Any]]]:
        """Returns a function that finds the boxes of every image."""
        images = self._images(pixels)

        def call():
            with self._torch.inference_mode():
                return self._found(images)

        return call

    def _images(self, pixels: np.ndarray) -> Any:
        images = self._torch.tensor(pixels).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self._torch.channels_last)

    def _outputs(self, images: Any) -> tuple[dict[str, Any], list[Any]]:
        maps = self._peer.backbone((images.float() / 255 - self._mean) / self._std)
        features = list(maps.values())
        return self._peer.head(features), features

    def _found(self, images: Any) -> list[dict[str, Any]]:
        outputs, features = self._outputs(images)
        sizes = [tuple(images.shape[-2:])] * len(images)
        listed = self._detection.image_list.ImageList(images, sizes)
        anchors = self._peer.anchor_generator(listed, features)
        counts = [9 * x.shape[-2] * x.shape[-1] for x in features]
        parts = {k: list(v.split(counts, dim=1)) for k, v in outputs.items()}
        anchors = [list(a.split(counts)) for a in anchors]
        return self._peer.postprocess_detections(parts, anchors, sizes)


def ours(path: str, pixels: np.ndarray) -> Callable[[], dict[str, Any]]:
    """Returns a function that finds the boxes of every image.

    Args:
      path: The weights of torchvision's detector.
      pixels: uint8 `[B, H, W, 3]`.
    """
    import jax
    import jax.numpy as jnp

    from fpn_jax import pretrained
    from fpn_jax.trained import Trained
    from fpn_jax.workdir.folder import Workdir

    case = CASES["retinanet"]._replace(images=len(pixels), size=pixels.shape[1])
    given = (*arguments_of(case, "float32"), *POSTPROCESSING)
    experiment = stepping.experiment_of(given)
    sample = jnp.zeros((1, *pixels.shape[1:]), jnp.uint8)
    shapes = jax.eval_shape(
        lambda: experiment.model.init(jax.random.key(0), sample, train=False)
    )
    name = "retinanet_resnet50_fpn"
    variables = pretrained.load_detector(name, path, shapes)
    predictor = Trained(Workdir(""), experiment, 0, variables).predictor()
    compiled, given = jax.jit(predictor.exported), jnp.asarray(pixels)
    return lambda: jax.block_until_ready(compiled(given))


def check_same(found: dict[str, Any], expected: list[dict[str, Any]]) -> int:
    """Returns the number of boxes; ends the benchmark if they differ.

    Args:
      found: Our boxes, padded.
      expected: Those of torchvision, a dict of each image.
    """
    total = 0
    for row, theirs in enumerate(expected):
        count = int((np.asarray(found["box_labels"][row]) >= 0).sum())
        scores = np.asarray(found["box_scores"][row])[:count]
        wanted = theirs["scores"].numpy()
        if count != len(wanted) or np.abs(scores - wanted).max(initial=0) > 1e-4:
            sys.exit(
                f"image {row}: {count} boxes, torchvision {len(wanted)}, or others"
            )
        total += count
    return total


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=384, help="side of the images, px")
    parser.add_argument("--repeats", type=int, default=9, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    warnings.simplefilter("ignore")
    report = timing.Report("detection_inference")
    rng = np.random.default_rng(0)
    # Patches of one colour, so that the maps differ from place to place.
    small = rng.integers(0, 256, (max(IMAGES), 12, 12, 3), np.uint8)
    pixels = small.repeat(given.size // 12, 1).repeat(given.size // 12, 2)
    peer = Theirs(pixels)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        peer.save(file.name)
        for images in IMAGES:
            part = pixels[:images]
            calls = {"ours": ours(file.name, part), "torch": peer.predictor(part)}
            boxes = check_same(calls["ours"](), calls["torch"]())
            taken = timing.in_turns(calls, given.repeats, warm_up=2)
            times = {who: timing.spread(seconds) for who, seconds in taken.items()}
            for who, spread in times.items():
                report.add(
                    images=images,
                    size=pixels.shape[1],
                    boxes=boxes,
                    who=who,
                    milliseconds=1e3 * spread["median"],
                    shortest=1e3 * spread["shortest"],
                    longest=1e3 * spread["longest"],
                    ratio_to_peer=times["torch"]["median"] / spread["median"],
                )
    report.show()


if __name__ == "__main__":
    main()
