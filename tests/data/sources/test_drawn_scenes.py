"""Drawn scenes: what is in them, how large it is, and where the boxes are."""

import concurrent.futures

import cv2
import numpy as np
import pytest

from fpn_jax.data.annotations import problems
from fpn_jax.data.drawing import composition, scenery
from fpn_jax.data.sources import drawn_scenes
from fpn_jax.data.sources.drawn_scenes import GREATEST_HIDDEN, DrawnScenesSource
from fpn_jax.errors import InputError

SOURCE = DrawnScenesSource("train", 64)
COUNT = 120


@pytest.fixture(scope="module")
def records():
    return [SOURCE[index] for index in range(COUNT)]


def animals(index):
    """Returns the animals of a record, nearest first, and its occluders."""
    rng = np.random.default_rng([SOURCE.seed, 0, index, 3])
    shapes = scenery.occluders(rng)
    hidden = scenery.covered(shapes, drawn_scenes._COARSE) > 0
    return SOURCE._animals(rng, 0, hidden), shapes


def test_a_record_is_a_function_of_its_index(records):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        again = list(threads.map(SOURCE.__getitem__, range(COUNT)[::-1]))[::-1]
    for record, other in zip(records, again, strict=True):
        assert record.keys() == other.keys()
        for key, value in record.items():
            np.testing.assert_array_equal(value, other[key])
    other = DrawnScenesSource("train", 64, seed=1)[0]
    assert (other["image"] != records[0]["image"]).any()


def test_the_picture_is_the_same_at_every_size(records):
    large = DrawnScenesSource("train", 192)
    for index in range(12):
        record = large[index]
        np.testing.assert_allclose(
            record["boxes"], 3 * records[index]["boxes"], rtol=1e-5
        )
        np.testing.assert_array_equal(
            record["box_labels"], records[index]["box_labels"]
        )
        small = cv2.resize(record["image"], (64, 64), interpolation=cv2.INTER_AREA)
        difference = np.abs(small.astype(int) - records[index]["image"])
        assert difference.mean() < 12


def test_annotations_break_no_rule(records):
    for record in records:
        assert list(problems(record, SOURCE.info)) == []
        assert set(record) == {"image", *SOURCE.info.fields}


def test_all_numbers_of_animals_and_both_classes_occur(records):
    counts = np.bincount([len(record["boxes"]) for record in records], minlength=5)
    assert counts.min() >= 0.1 * COUNT
    labels = np.concatenate([record["box_labels"] for record in records])
    assert 0.4 < labels.mean() < 0.6


def test_sizes_span_two_octaves_and_do_not_tell_the_class(records):
    boxes = np.concatenate([record["boxes"] for record in records])
    labels = np.concatenate([record["box_labels"] for record in records])
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) / 64
    low, high = SOURCE.sizes
    assert sides.min() < 1.3 * low
    assert sides.max() > 0.8 * high
    # The share of the animals in each of both octaves.
    assert 0.3 < (sides < np.sqrt(low * high)).mean() < 0.7
    widths = [pose.scale for i in range(COUNT) for _, _, pose, _ in animals(i)[0]]
    names = [who.label for i in range(COUNT) for who, *_ in animals(i)[0]]
    small = np.array(widths) < np.median(widths)
    assert abs(np.mean(np.array(names)[small]) - np.mean(names)) < 0.12
    assert len(widths) == len(labels)


def test_the_mask_shows_each_animal_where_its_box_is(records):
    for index in range(40):
        found, _ = animals(index)
        record = records[index]
        assert record["box_labels"].tolist() == [who.label for who, *_ in found]
        for (who, figure, pose, _), box in zip(found, record["boxes"], strict=True):
            np.testing.assert_array_equal(composition.head_box(figure, pose, 64), box)
            x0, y0, x1, y1 = np.rint(box).astype(int)
            inside = record["mask"][y0:y1, x0:x1]
            assert (inside == 1 + who.label).mean() > 0.2
        if not len(found):
            assert not record["mask"].any()


def test_no_head_is_hidden_more_than_is_said():
    most = 0.0
    for index in range(60):
        found, shapes = animals(index)
        hidden = scenery.covered(shapes, 256) > 0
        for _, figure, pose, _ in found:
            layers = [x for x in figure.layers if x.part in ("head", "ear")]
            for place, kept in ((layers, False), (figure.layers, True)):
                fixed = drawn_scenes.strokes.place(place, pose, 256)
                shape = drawn_scenes.strokes.silhouette(fixed, 256) > 0
                if kept:
                    hidden |= shape
                else:
                    most = max(most, (shape & hidden).sum() / shape.sum())
    # The rule is applied to a coarser picture.
    assert 0.1 < most < GREATEST_HIDDEN + 0.08


def test_no_individual_is_in_two_splits(records):
    seen = {}
    for split in ("train", "validate", "test"):
        source = DrawnScenesSource(split, 16)
        identities = [source[index]["box_identities"] for index in range(60)]
        seen[split] = set(np.concatenate(identities).tolist())
    assert not seen["train"] & seen["validate"]
    assert not seen["validate"] & seen["test"]
    assert len(records[0]["box_identities"]) == len(records[0]["boxes"])


def test_the_number_and_the_size_of_animals_can_be_set():
    source = DrawnScenesSource("test", 100, max_animals=1, sizes=(0.1, 0.2))
    records = [source[index] for index in range(30)]
    assert {len(record["boxes"]) for record in records} == {0, 1}
    boxes = np.concatenate([record["boxes"] for record in records])
    assert np.ptp(boxes[:, [0, 2]], axis=1).max() < 30
    assert source.id(3) == "drawn_scenes/test/3"
    with pytest.raises(IndexError, match="record 500 is out of range; drawn_scenes"):
        source.id(500)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"split": "tests"}, "split 'tests' is unknown"),
        ({"max_animals": 0}, "max_animals is 0"),
        ({"sizes": (0.3, 0.2)}, r"the least of sizes is 0.3; it must be in \(0, 0.2\]"),
        ({"sizes": (0.1, 0.9)}, "the greatest of sizes is 0.9"),
        ({"sizes": (0.1,)}, r"sizes are \(0.1,\)"),
        ({"train_records": 0}, "train_records is 0"),
        ({"image_size": 4}, "image_size is 4"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_values_are_named(changes, text):
    with pytest.raises(InputError, match=text):
        DrawnScenesSource(**{"split": "train", "image_size": 32} | changes)
