"""Whole detectors of torchvision with the same random weights, map by map."""

import functools
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads, necks, pretrained, tasks
from fpn_jax.model import PyramidModel
from fpn_jax.ops import anchors as anchor_ops
from fpn_jax.ops import boxes as box_ops
from tests.parity.peers import randomize, to_torch, torch, torchvision

SIZE, CLASSES = (256, 384), 5
LEVELS = (3, 4, 5, 6, 7)
TRUTH = [
    {"boxes": [[20, 30, 180, 200], [200, 40, 260, 90]], "labels": [1, 4]},
    {
        "boxes": [[0, 0, 384, 256], [50, 60, 82, 92], [300, 10, 310, 16]],
        "labels": [0, 2, 3],
    },
]
TORCHVISION = {"offset": 0.0, "by_class": True}


class Case(NamedTuple):
    """A detector: its name there, our parts, and COCO's parameters."""

    theirs: str
    extra: str
    head: dict
    task: dict
    parameters: int


RETINANET = {"name": "retinanet", "rounded": True, "iou_threshold": 0.5} | TORCHVISION
CASES = {
    "v1": Case(
        "retinanet_resnet50_fpn",
        "conv",
        {"name": "dense"},
        RETINANET | {"max_detections": 300},
        34_014_999,
    ),
    "v2": Case(
        "retinanet_resnet50_fpn_v2",
        "conv_c5",
        {"name": "dense", "norm": "group"},
        RETINANET | {"max_detections": 300, "box_loss": "giou"},
        38_198_935,
    ),
    "fcos": Case(
        "fcos_resnet50_fpn",
        "conv",
        {
            "name": "fcos",
            "distance": "relu",
            "level_factors": False,
            "use_bias": True,
            "first_distance": 0.0,
        },
        {"name": "fcos", "score_threshold": 0.2, "iou_threshold": 0.6} | TORCHVISION,
        32_269_600,
    ),
}


def nms(boxes, scores, iou_threshold):
    """Returns what torchvision's compiled operator does, as a loop."""
    kept, left = [], scores.argsort(descending=True, stable=True)
    while len(left):
        kept.append(int(left[0]))
        overlap = torchvision.ops.box_iou(boxes[left[:1]], boxes[left])[0]
        # The overlap of two boxes without an area is NaN, and suppresses nothing.
        left = left[~(overlap > iou_threshold) & (torch.arange(len(left)) > 0)]
    return torch.tensor(kept, dtype=torch.int64)


def our_model(case, num_classes):
    task = tasks.build(case.task, {"num_classes": num_classes})
    head = heads.build(case.head, task.head_arguments())
    neck = necks.build({"name": "fpn", "extra_levels": 2, "extra": case.extra})
    backbone = backbones.build("resnet50", levels=(3, 4, 5))
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return PyramidModel(backbone, neck, head, **plain), task


def shapes_of(model):
    image = jnp.zeros((1, 128, 128, 3))
    return jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), image
    )


def spread(head, features):
    """Makes the predictions of a fresh head differ, about as much as trained ones."""
    for value in head.parameters():
        value.add_((0.03 if value.ndim == 4 else 0.1) * torch.randn(value.shape))
    outputs = head(features)
    ends = {
        "cls_logits": (head.classification_head.cls_logits, 1.0),
        "bbox_regression": (head.regression_head.bbox_reg, 0.3),
    }
    for key, (layer, deviation) in ends.items():
        layer.weight.mul_(deviation / outputs[key].std())
    # Otherwise, few scores would reach the threshold.
    head.classification_head.cls_logits.bias.add_(2.5)


@functools.cache
def compared(name):
    """Returns case, task, both outputs of two images, the peer and its features."""
    case = CASES[name]
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, case.theirs)
    peer = build(weights=None, weights_backbone=None, num_classes=CLASSES)
    randomize(peer)
    peer.eval()
    rng = np.random.default_rng(0)
    images = rng.random((2, 8, 12, 3)).repeat(32, 1).repeat(32, 2).astype(np.float32)
    with torch.no_grad():
        features = list(peer.backbone(to_torch(images)).values())
        spread(peer.head, features)
        outputs = peer.head(features)
    model, task = our_model(case, CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/detector.pth"
        torch.save(peer.state_dict(), path)
        variables = pretrained.load_detector(case.theirs, path, shapes_of(model))
    apply = jax.jit(functools.partial(model.apply, train=False))
    ours = jax.device_get(apply(variables, 255 * images))
    anchors = peer.anchor_generator(
        torchvision.models.detection.image_list.ImageList(
            to_torch(images), [SIZE, SIZE]
        ),
        features,
    )
    return case, task, ours, outputs, peer, features, anchors


@pytest.mark.parametrize("name", CASES)
def test_maps_agree(name):
    _, _, ours, outputs, *_ = compared(name)
    theirs = {
        "class_logits": outputs["cls_logits"],
        "box_deltas": outputs["bbox_regression"],
        "distances": outputs["bbox_regression"],
        "centerness_logits": outputs.get("bbox_ctrness"),
    }
    for key, levels in ours.items():
        end = theirs[key].shape[-1]
        joined = np.concatenate([x.reshape(2, -1, end) for x in levels.values()], 1)
        if key == "distances":
            sizes = [x[0, ..., 0].size for x in levels.values()]
            joined = joined / np.repeat(2.0 ** np.array(LEVELS), sizes)[:, None]
        expected = theirs[key].numpy()
        assert joined.shape == expected.shape
        assert np.abs(joined - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
        assert expected.std() > 0.01


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_anchors_and_matches_are_equal(name):
    _, task, ours, _, peer, _, anchors = compared(name)
    made = np.concatenate(
        [task.anchors(level, x.shape[1:3]) for level, x in ours["class_logits"].items()]
    )
    np.testing.assert_array_equal(made, anchors[0].numpy())
    for truth in TRUTH:
        boxes = np.array(truth["boxes"], np.float32)
        iou = torchvision.ops.box_iou(torch.tensor(boxes), anchors[0])
        expected = peer.proposal_matcher(iou)
        found = anchor_ops.match(
            box_ops.iou(boxes[:, None], made), np.ones(len(boxes), bool)
        )
        np.testing.assert_array_equal(found, expected.numpy())
        assert (found >= 0).sum() >= len(boxes)


def batch():
    boxes = np.zeros((2, 4, 4), np.float32)
    labels = np.full((2, 4), -1, np.int32)
    for row, truth in enumerate(TRUTH):
        count = len(truth["boxes"])
        boxes[row, :count], labels[row, :count] = truth["boxes"], truth["labels"]
    return {
        "image": np.zeros((2, *SIZE, 3), np.uint8),
        "weight": np.ones(2, np.float32),
        "boxes": boxes,
        "box_labels": labels,
        "box_crowd": np.zeros((2, 4), np.int32),
    }


@pytest.mark.parametrize("name", CASES)
def test_losses_agree(name):
    """FCOS of torchvision divides by the count of the batch: compared one by one."""
    _, task, ours, outputs, peer, features, anchors = compared(name)
    found = task.losses(ours, batch())
    per_level = [x.shape[-2] * x.shape[-1] for x in features]
    for row in range(2):
        targets = [
            {
                "boxes": torch.tensor(TRUTH[row]["boxes"], dtype=torch.float32),
                "labels": torch.tensor(TRUTH[row]["labels"]),
            }
        ]
        one = {key: value[row : row + 1] for key, value in outputs.items()}
        extra = (per_level,) if name == "fcos" else ()
        expected = peer.compute_loss(targets, one, anchors[:1], *extra)
        names = {
            "classification": "class",
            "bbox_regression": "box",
            "bbox_ctrness": "centerness",
        }
        for theirs, value in expected.items():
            np.testing.assert_allclose(
                found[names[theirs]][row], value.numpy(), rtol=2e-4, err_msg=theirs
            )
        assert len(expected) == len(found)


@pytest.mark.parametrize("name", CASES)
def test_detections_are_equal(name, monkeypatch):
    _, task, ours, outputs, peer, features, anchors = compared(name)
    monkeypatch.setattr(torchvision.ops.boxes, "nms", nms)
    cells = [x.shape[-2] * x.shape[-1] for x in features]
    per_cell = outputs["cls_logits"].shape[1] // sum(cells)
    counts = [per_cell * count for count in cells]
    split = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
    expected = peer.postprocess_detections(
        split, [list(a.split(counts)) for a in anchors], [SIZE, SIZE]
    )
    answer = task.decode(ours, SIZE)
    for row in range(2):
        theirs = {key: value.numpy() for key, value in expected[row].items()}
        count = len(theirs["scores"])
        assert count > 20
        there = np.asarray(answer["box_labels"][row]) >= 0
        assert there.sum() == count
        scores = np.asarray(answer["box_scores"][row])[:count]
        np.testing.assert_allclose(scores, theirs["scores"], atol=1e-5)
        free = set(range(count))
        for number in range(count):
            # Scores that differ by less than their rounding may change places.
            near = abs(theirs["scores"] - scores[number]) < 1e-5
            near &= theirs["labels"] == answer["box_labels"][row][number]
            apart = abs(theirs["boxes"] - answer["boxes"][row][number]).max(1)
            same = [k for k in np.flatnonzero(near & (apart < 1e-3)) if k in free]
            assert same, number
            free.remove(same[0])


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_coco(name):
    model, _ = our_model(CASES[name], 91)
    leaves = jax.tree.leaves(shapes_of(model)["params"])
    count = sum(leaf.size for leaf in leaves)
    # Scales and shifts of a ResNet-50, which the other two detectors never train.
    count -= 53_120 * (name != "v2")
    assert count == CASES[name].parameters
