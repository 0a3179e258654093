"""Makes the picture of answers: `python docs/answers_sheet.py OUT.png RUN RUN RUN`.

Each run is a workdir of a dense task on drawn animals. A row has its worst, median and
best images of the test split: what is true on the left, the answer on the right.
"""

import sys

import cv2
import numpy as np
from PIL import Image

from fpn_jax.modes.report import evaluated
from fpn_jax.parts import source
from fpn_jax.trained import load
from fpn_jax.views import VIEWS
from fpn_jax.views.matching import Objects, iou, match
from fpn_jax.views.ranked import ranked

TILE, GAP, CAPTION, EACH = 150, 6, 16, 2
"""Side of a tile, gap, height of a caption, in pixels; images of each kind."""
BACKGROUND, TEXT = (250, 248, 244), (60, 56, 60)
COLOURS = 160
"""Colours of the palette of the file."""


def scores(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Returns one number for each image; larger is better, NaN does not count.

    Args:
      rows: What the task kept.
    """
    if "true_boxes" in rows:
        return np.array([_of_boxes(rows, row) for row in range(len(rows["boxes"]))])
    if "foreground_iou" in rows:
        return rows["foreground_iou"]
    if "iou" in rows:
        return np.where(rows["there"], rows["iou"], np.nan)
    return -np.nanmean(rows["error"], axis=1)


def _of_boxes(rows: dict[str, np.ndarray], row: int) -> float:
    """Returns the mean IoU of objects, 0 if missed, and of wrong boxes, always 0."""
    objects = Objects.of(rows, row).only_shown()
    found = match(objects)
    overlap = iou(objects.boxes, objects.true_boxes, objects.crowd)
    right = sum(overlap[k, place] for k, place in enumerate(found) if place >= 0)
    count = len(objects.true_boxes) + int((found < 0).sum())
    return right / count if len(objects.true_boxes) else np.nan


def _as_answer(truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns true boxes as the answer of a detector; other truths unchanged."""
    if "box_crowd" not in truth:
        return truth
    every = np.ones(len(truth["boxes"]))
    return truth | {"box_scores": every, "box_shown": every > 0}


def row_of(workdir: str) -> list[tuple[str, np.ndarray]]:
    """Returns captions, and pictures of the truth and of the answer side by side.

    Args:
      workdir: Folder of a run.
    """
    trained = load(workdir, "best")
    experiment = trained.experiment
    records = source(experiment.config, "test")
    evaluation, _ = experiment.evaluate(trained.variables, records)
    shown = evaluated(trained, "test", records, evaluation)
    view, info = VIEWS[experiment.task.kind], experiment.info
    value = scores(evaluation.rows)
    chosen = ranked(value, each=EACH)
    answers = shown.answers([row for _, row in chosen])
    tiles = []
    for (kind, row), answer in zip(chosen, answers, strict=True):
        image, truth = shown.load_image(row), shown.load_truth(row)
        truth = _as_answer(truth)
        true = {key: truth[key] for key in answer.keys() & truth.keys()}
        ones = {key: np.ones_like(v) for key, v in answer.items() if "score" in key}
        pair = [view.draw(image, answer | a, info) for a in (ones | true, {})]
        tiles.append((f"{kind} {abs(value[row]):.3f}", np.concatenate(pair, axis=1)))
    return tiles


def sheet(workdirs: list[str]) -> np.ndarray:
    """Returns a row of pictures for every run."""
    rows = [row_of(workdir) for workdir in workdirs]
    columns = max(map(len, rows))
    height = len(rows) * (TILE + GAP + CAPTION) + GAP
    width = columns * (2 * TILE + GAP) + GAP
    page = np.full((height, width, 3), BACKGROUND, np.uint8)
    for number, row in enumerate(rows):
        y = GAP + number * (TILE + GAP + CAPTION)
        for column, (caption, picture) in enumerate(row):
            x = GAP + column * (2 * TILE + GAP)
            size = (2 * TILE, TILE)
            tile = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            page[y : y + TILE, x : x + 2 * TILE] = tile
            position = (x + 2, y + TILE + 12)
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(page, caption, position, font, 0.4, TEXT, 1, cv2.LINE_AA)
    return page


if __name__ == "__main__":
    page = Image.fromarray(sheet(sys.argv[2:]))
    page.quantize(COLOURS).save(sys.argv[1], optimize=True)
