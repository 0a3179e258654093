"""The losses of YOLO and their gradients against a transcription for torch.

The transcription fills dense targets cell by cell, as implementations of Darknet's
`[region]` do, where ours gathers the predictor of every box.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax.tasks.grid import GridDetection
from tests.parity.peers import torch

LEVEL, CELLS, CLASSES = 4, (4, 6), 3
ANCHORS = ((12.0, 12.0), (30.0, 40.0), (90.0, 60.0))
NAMES = ("coordinates", "object", "background", "class")


def truth(count, seed, most):
    """Returns a batch of two images; the second has a crowd, and half of the boxes."""
    rng = np.random.default_rng(seed)
    boxes = np.full((2, most, 4), np.nan, np.float32)
    labels = np.full((2, most), -1, np.int32)
    crowd = np.zeros((2, most), np.int32)
    for row, some in enumerate((count, count // 2)):
        middle = rng.uniform(0, 1, (some, 2)) * (96, 64)
        half = np.exp(rng.uniform(0, 3.5, (some, 2)))
        boxes[row, :some] = np.concatenate([middle - half, middle + half], 1)
        labels[row, :some] = rng.integers(0, CLASSES, some)
    crowd[1, 0] = 1
    return {"boxes": boxes, "box_labels": labels, "box_crowd": crowd}


def predictions(seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, *CELLS, len(ANCHORS))
    return {
        "grid_boxes": rng.normal(0, 0.5, (*shape, 4)).astype(np.float32),
        "object_logits": rng.normal(-1, 1, shape).astype(np.float32),
        "class_logits": rng.normal(0, 1, (*shape, CLASSES)).astype(np.float32),
    }


def overlap(a, b):
    """Returns the IoU of boxes `[…, 4]`, which are broadcast."""
    low, high = (
        torch.maximum(a[..., :2], b[..., :2]),
        torch.minimum(a[..., 2:], b[..., 2:]),
    )
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return both / (areas[0] + areas[1] - both)


def decoded(numbers, stride):
    """Returns the boxes of one image, `[h, w, A, 4]`."""
    row, column = torch.meshgrid(*map(torch.arange, CELLS), indexing="ij")
    corner = torch.stack([column, row], -1)[:, :, None]
    middle = (torch.sigmoid(numbers[..., :2]) + corner) * stride
    sides = torch.tensor(ANCHORS) * torch.exp(numbers[..., 2:])
    return torch.cat([middle - sides / 2, middle + sides / 2], -1)


def region(found, boxes, labels, crowd, rescore, ignore=0.6):
    """Returns the four losses of one image, divided by its number of objects."""
    stride = 2.0**LEVEL
    t, objects, logits = (found[name] for name in found)
    there = ~torch.isnan(boxes[:, 0])
    hidden, boxes = boxes[there & (crowd == 1)], boxes[there & (crowd == 0)]
    labels = labels[there & (crowd == 0)]
    made = decoded(t.detach(), stride)
    shape = objects.shape
    coordinates, goal = torch.zeros(*shape, 4), torch.ones(shape)
    responsible = torch.zeros(shape, dtype=torch.bool)
    classes = torch.zeros(shape, dtype=torch.int64)
    # The largest box is written last, so it wins.
    order = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort()
    for box, label in zip(boxes[order], labels[order], strict=True):
        sides, middle = box[2:] - box[:2], (box[:2] + box[2:]) / 2 / stride
        column, row = (int(number) for number in middle)
        centred = [
            torch.cat([-s / 2, s / 2], -1) for s in (sides, torch.tensor(ANCHORS))
        ]
        kind = int(overlap(*centred).argmax())
        place = row, column, kind
        share = middle - torch.tensor([column, row])
        growth = torch.log(sides / torch.tensor(ANCHORS[kind]))
        coordinates[place] = torch.cat([share, growth])
        responsible[place], classes[place] = True, label
        if rescore:
            goal[place] = overlap(made[place], box)
    excused = responsible.clone()
    if len(boxes):
        excused |= overlap(made[..., None, :], boxes).amax(-1) > ignore
    if len(hidden):
        excused |= overlap(made[..., None, :], hidden).amax(-1) > 0
    said = torch.sigmoid(objects)
    own = torch.cat([torch.sigmoid(t[..., :2]), t[..., 2:]], -1)
    chance = torch.log_softmax(logits, -1)
    of_class = -chance.gather(-1, classes[..., None])[..., 0]
    parts = (
        (own - coordinates).square().sum(-1)[responsible],
        5 * (said - goal).square()[responsible],
        said.square()[~excused],
        of_class[responsible],
    )
    return [part.sum() / max(len(boxes), 1) for part in parts]


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize(("count", "most"), [(0, 3), (3, 5), (12, 12), (100, 100)])
def test_losses_and_gradients(count, most, rescore):
    batch, made = truth(count, count, most), predictions(count)
    task = GridDetection(CLASSES, anchors=ANCHORS, rescore=rescore)

    def ours(found):
        losses = task.losses({k: {LEVEL: v} for k, v in found.items()}, batch)
        return sum(x.sum() for x in losses.values()), losses

    given = jax.tree.map(jnp.asarray, made)
    gradients, losses = jax.jit(jax.grad(ours, has_aux=True))(given)
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in made.items()}
    theirs = [
        region(
            {name: x[row] for name, x in leaves.items()},
            *(torch.tensor(batch[f][row]) for f in batch),
            rescore,
        )
        for row in range(2)
    ]
    sum(sum(parts) for parts in theirs).backward()
    for number, name in enumerate(NAMES):
        expected = [parts[number].item() for parts in theirs]
        np.testing.assert_allclose(losses[name], expected, rtol=1e-5, err_msg=name)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(
            gradients[name], leaf.grad, rtol=1e-4, atol=1e-6, err_msg=name
        )
