"""Non-maximum suppression of eight images compared with torchvision's, in turns.

    python -m benchmarks.suppression [--repeats=15]

torchvision's `batched_nms` takes one image; ours takes all of them, in a fixed shape.
Nothing is timed before both keep the same boxes. Needs a torchvision whose compiled
operators load.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from fpn_jax.ops import suppression

IMAGES, CLASSES, KEPT, IOU = 8, 2, 100, 0.5
SETS = {"clusters": 30, "apart": 700}
"""Name of a set → number of places around which its boxes lie."""


def boxes_of(places: int, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Returns boxes, scores and labels of all images.

    Args:
      places: Number of places around which the boxes of an image lie.
      count: Boxes of an image.
      seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 1000, (IMAGES, places, 2))
    which = rng.integers(places, size=(IMAGES, count))
    middle = np.take_along_axis(centre, which[..., None], 1)
    middle = middle + rng.normal(0, 6, middle.shape)
    half = rng.uniform(20, 60, (IMAGES, count, 2))
    boxes = np.concatenate([middle - half, middle + half], -1).astype(np.float32)
    scores = rng.random((IMAGES, count)).astype(np.float32)
    return boxes, scores, (which % CLASSES).astype(np.int32)


def ours(boxes: Any, scores: Any, labels: Any) -> Any:
    """Returns the boxes that are kept, at most `KEPT` of each image."""
    return suppression.suppress(
        boxes, scores, labels, max_boxes=KEPT, iou_threshold=IOU
    )


def theirs(boxes: Any, scores: Any, labels: Any) -> Callable[[], list[Any]]:
    """Returns a function of torchvision that keeps the same boxes."""
    from benchmarks.torch_peers import torch, torchvision

    if not torchvision.extension._has_ops():
        sys.exit("the compiled operators of torchvision do not load beside this torch")
    given = [torch.tensor(x) for x in (boxes, scores, labels)]

    def call() -> list[Any]:
        return [
            torchvision.ops.batched_nms(b, s, k, IOU)[:KEPT]
            for b, s, k in zip(*given, strict=True)
        ]

    return call


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--boxes", type=int, default=1000)
    given = parser.parse_args()
    report = timing.Report("suppression")
    compiled = jax.jit(ours)
    for name, places in SETS.items():
        made = boxes_of(places, given.boxes)
        on_device, peer = jax.device_put(made), theirs(*made)
        kept, expected = compiled(*on_device), peer()
        for row in range(IMAGES):
            count = int(kept.count[row])
            if kept.index[row, :count].tolist() != expected[row].tolist():
                sys.exit(f"{name}: image {row} keeps other boxes than torchvision")
        calls = {
            "ours": lambda on_device=on_device: jax.block_until_ready(
                compiled(*on_device)
            ),
            "torchvision": peer,
        }
        times = timing.in_turns(calls, given.repeats, warm_up=3)
        peer_median = timing.spread(times["torchvision"])["median"]
        for who, seconds in times.items():
            found = timing.spread(seconds)
            report.add(
                set=name,
                boxes=given.boxes,
                images=IMAGES,
                who=who,
                **found,
                ratio=peer_median / found["median"],
            )
    report.show()


if __name__ == "__main__":
    main()
