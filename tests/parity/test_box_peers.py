"""Boxes, anchors, matches and suppression against torchvision and OpenCV."""

import cv2
import numpy as np
import pytest

from fpn_jax.ops import anchors, boxes, suppression
from tests.parity.peers import torch, torchvision

try:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    COMPILED = True
except RuntimeError:
    COMPILED = False


def random_boxes(count, seed, whole=False):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 90, (count, 2))
    made = np.concatenate([low, low + rng.uniform(1, 60, (count, 2))], 1)
    return (np.rint(made) if whole else made).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("iou", "box_iou"),
        ("giou", "generalized_box_iou"),
        ("diou", "distance_box_iou"),
        ("ciou", "complete_box_iou"),
    ],
)
def test_overlaps_of_all_pairs(ours, theirs):
    a, b = random_boxes(40, 0), random_boxes(50, 1)
    found = getattr(boxes, ours)(a[:, None], b)
    expected = getattr(torchvision.ops, theirs)(torch.tensor(a), torch.tensor(b))
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_coded_boxes():
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    made, around = random_boxes(60, 2), random_boxes(60, 3)
    expected = coder.encode_single(torch.tensor(made), torch.tensor(around)).numpy()
    np.testing.assert_allclose(boxes.encode(made, around), expected, atol=1e-5)
    deltas = np.random.default_rng(4).normal(0, 3, (60, 4)).astype(np.float32)
    decoded = coder.decode_single(torch.tensor(deltas), torch.tensor(around))
    np.testing.assert_allclose(
        boxes.decode(deltas, around), decoded.numpy(), rtol=1e-5, atol=1e-3
    )


def test_anchors_of_retinanet():
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sizes = [tuple(int(x * 2 ** (k / 3)) for k in range(3)) for x in (32, 64, 128)]
    generator = AnchorGenerator(tuple(sizes), ((0.5, 1.0, 2.0),) * 3)
    image, maps = (200, 304), [(25, 38), (13, 19), (7, 10)]
    (expected,) = generator(
        ImageList(torch.zeros(1, 3, *image), [image]),
        [torch.zeros(1, 1, *size) for size in maps],
    )
    found = [
        anchors.on_grid(
            anchors.shapes(chosen, (0.5, 1, 2), rounded=True),
            size,
            # torchvision's stride is a whole number, also where the map is larger.
            (image[0] // size[0], image[1] // size[1]),
            (0, 0),
        )
        for chosen, size in zip(sizes, maps, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(found), expected.numpy())


@pytest.mark.parametrize("keep_best", [False, True])
def test_matches(keep_best):
    from torchvision.models.detection._utils import Matcher

    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=keep_best)
    kept = 0
    for seed in range(20):
        true, around = random_boxes(6, seed), random_boxes(400, seed + 100)
        iou = np.array(boxes.iou(true[:, None], around))
        expected = matcher(torch.tensor(iou)).numpy()
        found = anchors.match(iou, np.ones(6, bool), keep_best=keep_best)
        np.testing.assert_array_equal(found, expected)
        kept += (found >= 0).sum()
        # Padding changes nothing.
        padded = np.concatenate([iou, np.zeros((3, 400), np.float32)])
        again = anchors.match(padded, np.arange(9) < 6, keep_best=keep_best)
        np.testing.assert_array_equal(again, expected)
    assert kept > 100


@pytest.mark.skipif(not COMPILED, reason="torchvision has no compiled operators here")
@pytest.mark.parametrize("agnostic", [False, True])
def test_hard_suppression(agnostic):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        made = random_boxes(100, seed, whole=True)
        scores = rng.integers(0, 40, 100).astype(np.float32) / 40
        labels = rng.integers(0, 1 if agnostic else 3, 100)
        expected = torchvision.ops.batched_nms(
            torch.tensor(made), torch.tensor(scores), torch.tensor(labels), 0.5
        )
        kept = suppression.suppress(made, scores, labels, max_boxes=100)
        assert kept.index[: int(kept.count)].tolist() == expected.tolist()


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_suppression(method):
    theirs = f"SoftNMSMethod_SOFTNMS_{method.upper()}"
    for seed in range(20):
        rng = np.random.default_rng(seed)
        made = random_boxes(30, seed, whole=True)
        scores = rng.uniform(0.05, 1, 30).astype(np.float32)
        corner_and_size = np.concatenate([made[:, :2], made[:, 2:] - made[:, :2]], 1)
        expected, index = cv2.dnn.softNMSBoxes(
            corner_and_size.astype(int).tolist(),
            scores.tolist(),
            score_threshold=0.01,
            nms_threshold=0.3,
            sigma=0.5,
            method=getattr(cv2.dnn, theirs),
        )
        kept = suppression.suppress(
            made,
            scores,
            max_boxes=30,
            iou_threshold=0.3,
            method=method,
            least_score=0.01,
        )
        count = int(kept.count)
        assert kept.index[:count].tolist() == np.ravel(index).tolist()
        np.testing.assert_allclose(kept.score[:count], np.ravel(expected), rtol=1e-4)
