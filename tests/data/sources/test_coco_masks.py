"""Masks of COCO: polygons and run lengths, and every fault named."""

import sys

import numpy as np
import pytest
from pycocotools import mask as masks

from fpn_jax.data.check import check
from fpn_jax.data.records import IGNORE, BadRecord
from fpn_jax.data.sources import coco_masks
from fpn_jax.errors import InputError
from tests.data.sources.box_files import (
    SIZES,
    coco_source,
    named,
    write_all,
    write_coco,
)


@pytest.fixture
def root(tmp_path):
    write_all(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["polygon", "list", "text"])
def test_masks_are_of_the_smallest_object_and_crowds_are_ignored(root, kind):
    def change(found):
        for annotation in found["annotations"]:
            width, height = SIZES["wide" if annotation["image_id"] == 5 else "tall"]
            if kind != "polygon":
                (polygon,) = annotation["segmentation"]
                (shape,) = masks.frPyObjects([polygon], height, width)
                if kind == "list":
                    pixels = masks.decode(shape).T.ravel()
                    edges = np.flatnonzero(np.diff(pixels)) + 1
                    runs = np.diff([0, *edges, len(pixels)]).tolist()
                    shape["counts"] = [0, *runs] if pixels[0] else runs
                else:
                    shape["counts"] = shape["counts"].decode()
                annotation["segmentation"] = shape
        found["annotations"][2]["iscrowd"] = 1

    write_coco(root / "coco.json", change)
    made = coco_source(root, fields=("mask", "boxes"))
    assert made.info.mask_classes == ("background", "cat", "dog")
    assert check(made).passed
    found = {made.id(i).rsplit("/", 1)[1]: made[i]["mask"] for i in range(3)}
    expected = np.ones((20, 40), np.uint8)
    expected[2:18, 4:30] = 2
    np.testing.assert_array_equal(found["wide.jpg"], expected)
    crowd = np.zeros((30, 16), np.uint8)
    crowd[5:29, 2:9] = 255
    np.testing.assert_array_equal(found["tall.jpg"], crowd)
    assert not found["empty.jpg"].any()


def annotation(shape, **others):
    return {"id": 3, "segmentation": shape} | others


def test_run_lengths_as_a_text_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(int(n) for n in rng.integers(1, 40, 2))
        pixels = rng.random(size) < rng.choice([0, 0.02, 0.5, 0.98, 1])
        shape = masks.encode(np.asfortranarray(pixels.astype(np.uint8)))
        given = {"size": list(size), "counts": shape["counts"].decode()}
        found = coco_masks.class_map([(annotation(given), 1)], size)
        np.testing.assert_array_equal(found, pixels)


def test_an_object_is_drawn_over_a_crowd_and_a_small_one_over_a_large_one():
    # Runs go down the columns of two pixels.
    small, crowd, large = (
        {"size": [2, 15], "counts": [start, count, 30 - start - count]}
        for start, count in [(10, 8), (0, 30), (4, 16)]
    )
    objects = [
        (annotation(small), 3),
        (annotation(crowd, iscrowd=1), 9),
        (annotation(large), 2),
    ]
    found = coco_masks.class_map(objects, (2, 15))
    row = [IGNORE] * 2 + [2] * 3 + [3] * 4 + [2] + [IGNORE] * 5
    assert found.tolist() == [row, row]


FAULTS = {
    "is missing, so its pixels would be background": None,
    "annotation 3 is neither a list of polygons nor run lengths": "text",
    "polygon 0 is no list of x and y of three or more": [[1, 2, 3, 4]],
    "polygon 1 is no list of x and y": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, "6"]],
    "polygon 0 is far outside of the image of 7 × 5": [[1, 2, 3, 4, 5, 1e9]],
    r"has the size \[7, 5\]; the height and width of the image are \[5, 7\]": {
        "size": [7, 5],
        "counts": [35],
    },
    "counts that are neither a list nor a text": {"size": [5, 7], "counts": [1.5]},
    "run lengths for 34 pixels; the image has 35": {"size": [5, 7], "counts": [34]},
    "run lengths for 35 pixels": {"size": [5, 7], "counts": [40, -5]},
    "run lengths for 1 pixels": {"size": [5, 7], "counts": "01"},
    "a text of counts that is no run length": {"size": [5, 7], "counts": "o" * 20},
    "no run length": {"size": [5, 7], "counts": "é"},
    "ends within a number": {"size": [5, 7], "counts": "P"},
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_wrong_segmentation_is_named(reason):
    with pytest.raises(ValueError, match=reason):
        coco_masks.class_map([(annotation(FAULTS[reason]), 1)], (5, 7))


def test_a_wrong_segmentation_is_the_fault_of_its_photograph(root):
    write_coco(root / "coco.json", lambda f: f["annotations"][2].pop("segmentation"))
    made = coco_source(root, fields=("mask",))
    with pytest.raises(BadRecord, match="the segmentation of annotation 3 is missing"):
        made[named(made, "tall.jpg")]
    assert made[named(made, "wide.jpg")]["mask"].any()


def test_without_pycocotools_polygons_are_refused(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match=r'pip install "fpn_jax\[detection\]"'):
        coco_source(root, fields=("mask",))
    assert len(coco_source(root)) == len(SIZES)
