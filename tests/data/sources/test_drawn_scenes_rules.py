"""Drawn scenes: annotations against what is painted, and the rules of placement."""

import cv2
import numpy as np
import pytest

from fpn_jax.data.drawing import animals, composition, scenery, strokes
from fpn_jax.data.sources import drawn_scenes
from fpn_jax.data.sources.drawn_scenes import LEAST_INSIDE, DrawnScenesSource

CANVAS = 512


def found(source, index):
    """Returns the animals of a record of the train split, and its occluders."""
    rng = np.random.default_rng([source.seed, 0, index, 3])
    shapes = scenery.occluders(rng)
    hidden = scenery.covered(shapes, drawn_scenes._COARSE) > 0
    return source._animals(rng, 0, hidden), shapes


def painted(layers, pose, size):
    """Returns where the colours of layers are opaque, bool `[size, size]`."""
    placed = strokes.place(layers, pose, size)
    black = np.zeros((size, size, 3), np.uint8)
    white = np.full_like(black, 255)
    strokes.paint(black, placed)
    strokes.paint(white, placed)
    return (black == white).all(axis=-1)


def test_a_box_is_the_extent_of_the_head_that_is_painted():
    source, checked = DrawnScenesSource("train", CANVAS), 0
    for index in range(20):
        for animal in found(source, index)[0]:
            head = [x for x in animal.figure.layers if x.part in ("head", "ear")]
            rows, columns = np.nonzero(painted(head, animal.pose, CANVAS))
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            box = composition.head_box(animal.figure, animal.pose, CANVAS)
            # A box does not count half of the outline, 0.05 head units wide.
            edge = 0.025 * animal.pose.scale * CANVAS
            np.testing.assert_allclose(extent, box, atol=edge + 2.5)
            checked += 1
    assert checked > 20


def test_the_mask_is_the_class_of_the_nearest_thing_that_is_painted():
    source = DrawnScenesSource("train", 128)
    for index in range(20):
        nearest_first, shapes = found(source, index)
        expected = np.zeros((CANVAS, CANVAS), np.uint8)
        for animal in nearest_first[::-1]:
            layers = [x for x in animal.figure.layers if x.part]
            expected[painted(layers, animal.pose, CANVAS)] = 1 + animal.who.label
        expected[scenery.covered(shapes, CANVAS) > 0] = 0
        expected = expected[2::4, 2::4]
        assert np.mean(source[index]["mask"] != expected) < 0.02
        kernel = np.ones((3, 3), np.uint8)
        inner = cv2.erode(expected, kernel) == cv2.dilate(expected, kernel)
        # Away from outlines, the masks have the same values.
        assert np.mean((source[index]["mask"] != expected)[inner]) < 0.002


@pytest.mark.parametrize("sizes", [(0.12, 0.48), (0.3, 0.6)])
def test_the_border_cuts_off_little_of_a_head(sizes):
    source, shares = DrawnScenesSource("train", 32, sizes=sizes), []
    for index in range(600):
        for animal in found(source, index)[0]:
            box = composition.head_extent(animal.figure, animal.pose)
            x0, y0, x1, y1 = box
            inside = (min(x1, 1) - max(x0, 0)) * (min(y1, 1) - max(y0, 0))
            shares.append(inside / ((x1 - x0) * (y1 - y0)))
    assert LEAST_INSIDE <= min(shares) < 0.9


def test_no_individual_is_twice_in_a_scene(monkeypatch):
    monkeypatch.setattr(drawn_scenes, "INDIVIDUALS", 4)
    source, counts = DrawnScenesSource("train", 16), []
    for index in range(60):
        identities = source[index]["box_identities"].tolist()
        assert len(set(identities)) == len(identities)
        counts.append(len(identities))
    assert max(counts) > 1


def test_an_identity_is_one_animal_and_one_class():
    source, seen = DrawnScenesSource("train", 16), {}
    for index in range(1500):
        for animal in found(source, index)[0]:
            seen.setdefault(animal.identity, []).append(animal.who)
    again = [group for group in seen.values() if len(group) > 1]
    assert len(again) > 20
    for first, *others in again:
        for other in others:
            assert (other.label, other.coat) == (first.label, first.coat)
            assert other.proportions == first.proportions
    assert {who.label for group in seen.values() for who in group} == {
        animals.CAT,
        animals.DOG,
    }
