import re

import numpy as np
import pytest

from fpn_jax.data.annotations import Layout, Unusable, problems
from fpn_jax.data.records import DROPPED, FIELDS, OF_BOXES, SourceInfo
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError

SOURCE = DrawnSource("train", 32)
INFO = SOURCE.info


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_drawn_records_break_no_rule():
    for index in range(20):
        assert list(problems(SOURCE[index], INFO)) == []


BROKEN = {
    "label": [
        (2, "2 is not the index of one of the 2 classes"),
        (-1, "-1 is not the index"),
        (1.0, "1.0 is not an integer"),
    ],
    "mask": [
        (np.zeros((32, 31), np.uint8), r"it is uint8 \[32, 31\]; uint8 \[32, 32\] is"),
        (np.zeros((32, 32), np.int32), r"it is int32 \[32, 32\]"),
        (np.full((32, 32), 7, np.uint8), "value 7 has no class.*background, animal"),
        ([[0]], "it is of type list"),
    ],
    "boxes": [
        (boxes((0, 0, 32, 32.5)), r"box 0, \[0.0, 0.0, 32.0, 32.5\], reaches beyond"),
        (boxes((-0.1, 0, 3, 3)), "reaches beyond the image of 32 × 32 pixels"),
        (boxes((9, 0, 3, 3)), "box 0, .* is empty or reversed"),
        (boxes((3, 3, 3, 9)), "is empty or reversed"),
        (boxes((0, np.nan, 3, 3)), "has a number that is not finite"),
        (np.zeros((1, 5), np.float32), r"it is float32 \[1, 5\]; float32 \[1, 4\]"),
        (np.zeros((1, 4)), "it is float64"),
    ],
    "box_labels": [
        (np.array([2], np.int32), "2 is not the index"),
        (np.array([0, 0], np.int32), r"it is int32 \[2\]; int32 \[1\] is expected"),
    ],
    "box_crowd": [
        (np.array([2], np.int32), "2 is neither 0 nor 1"),
        (np.zeros(0, np.int32), r"it is int32 \[0\]; int32 \[1\] is expected"),
    ],
    "box_identities": [(np.array([-2], np.int32), "-2 is below -1")],
    "landmarks": [
        (np.zeros((4, 3), np.float32), r"float32 \[4, 3\]; float32 \[5, 3\]"),
        (np.full((5, 3), np.inf, np.float32), "'left eye'.* not finite"),
        (np.full((5, 3), 2, np.float32), "a visibility other than 0 and 1"),
        (np.full((5, 3), (33, 0, 1), np.float32), "'left eye'.* is visible, but out"),
    ],
    "identity": [(-3, "-3 is negative"), (np.zeros(2, np.int32), "not an integer")],
}


def test_every_field_has_broken_examples():
    assert BROKEN.keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [(field, *row) for field, rows in BROKEN.items() for row in rows],
)
def test_a_broken_annotation_is_named(field, value, rule):
    found = dict(problems(SOURCE[0] | {field: value}, INFO))
    assert list(found) == [field]
    assert re.search(rule, found[field]), found


def test_no_annotation_and_no_box_are_no_problem():
    none = np.zeros(0, np.int32)
    empty = {"boxes": boxes()} | dict.fromkeys(OF_BOXES, none)
    assert list(problems(SOURCE[0] | empty, INFO)) == []
    assert list(problems(SOURCE[0] | dict.fromkeys(FIELDS), INFO)) == []
    assert list(problems({"image": SOURCE[0]["image"]}, INFO)) == []


def test_invisible_landmarks_may_be_anywhere():
    points = np.full((5, 3), (-9, 99, 0), np.float32)
    assert list(problems(SOURCE[0] | {"landmarks": points}, INFO)) == []


def test_values_of_an_ignored_pixel_and_of_no_class_are_allowed():
    record = SOURCE[0] | {"box_labels": np.array([-1], np.int32)}
    record["mask"][0, 0] = 255
    assert list(problems(record, INFO)) == []


def test_a_layout_refuses_what_the_source_lacks():
    info = SourceInfo(("cat", "dog"), ("label",))
    with pytest.raises(InputError, match="no 'mask', which the task needs; its fields"):
        Layout.of(info, ("label", "mask"))
    with pytest.raises(InputError, match="field 'masks' is unknown; did you mean"):
        Layout.of(INFO, ("masks",))
    with pytest.raises(InputError, match="max_boxes is 0; it must be at least 1"):
        Layout.of(INFO, ("boxes",), 0)


def test_only_the_asked_fields_are_taken_in_the_order_of_the_table():
    layout = Layout.of(INFO, {"identity", "mask", "label"})
    assert layout.fields == ("label", "mask", "identity")
    assert list(layout.take(SOURCE[0])) == ["image", "label", "mask", "identity"]
    assert list(layout.row(SOURCE[0])) == ["label", "mask", "identity"]
    with_points = Layout.of(INFO, ["landmarks"]).take(SOURCE[0])
    assert with_points["mirrored"] == (1, 0, 2, 4, 3)


def test_boxes_are_padded_and_labels_of_nothing_are_minus_one():
    layout = Layout.of(INFO, ("boxes", "box_labels"), 3)
    row = layout.row(SOURCE[0])
    assert row["boxes"].shape == (3, 4)
    np.testing.assert_array_equal(row["boxes"][0], SOURCE[0]["boxes"][0])
    assert not row["boxes"][1:].any()
    assert row["box_labels"].tolist() == [SOURCE[0]["label"], -1, -1]
    assert row[DROPPED].tolist() == [0, 0]
    empty = {"boxes": boxes(), "box_labels": np.zeros(0, np.int32)}
    row = layout.row(SOURCE[0] | empty)
    assert row["box_labels"].tolist() == [-1, -1, -1]


def test_of_too_many_boxes_the_largest_are_kept_in_their_order():
    many = boxes((0, 0, 1, 1), (0, 0, 9, 9), (0, 0, 2, 9), (0, 0, 8, 8), (0, 0, 3, 1))
    record = SOURCE[0] | {"boxes": many, "box_labels": np.arange(5, dtype=np.int32)}
    row = Layout.of(INFO, ("boxes", "box_labels"), 3).row(record | {DROPPED: 4})
    assert row["box_labels"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(row["boxes"], many[[1, 2, 3]])
    assert row[DROPPED].tolist() == [4, 2]
    # Labels alone follow the same boxes.
    row = Layout.of(INFO, ("box_labels",), 3).row(record)
    assert row["box_labels"].tolist() == [1, 2, 3]
    assert row.keys() == {"box_labels", DROPPED}


def test_a_row_of_padding_has_the_shapes_of_an_example():
    layout = Layout.of(INFO, FIELDS, 4)
    row, empty = layout.row(SOURCE[0]), layout.empty(32)
    assert row.keys() == empty.keys() == {*FIELDS, DROPPED}
    for name in row:
        assert np.shape(row[name]) == np.shape(empty[name])
        assert row[name].dtype == empty[name].dtype
        if name in FIELDS:
            assert row[name].dtype == FIELDS[name].dtype
            assert (empty[name] == FIELDS[name].padding).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boxes": None}, "it has no 'boxes' annotation"),
        ({"boxes": np.zeros((1, 4))}, "boxes: it is float64"),
        ({"boxes": np.zeros((4,), np.float32)}, r"boxes: it is float32 \[4\]"),
    ],
)
def test_a_record_without_a_usable_annotation_is_refused(changes, reason):
    record = SOURCE[0] | changes
    with pytest.raises(Unusable, match=reason):
        Layout.of(INFO, ("boxes",)).take(record)
    with pytest.raises(Unusable, match="box"):
        Layout.of(INFO, ("box_labels",)).take(record)
    # Another task does not need the boxes.
    Layout.of(INFO, ("mask",)).take(record)


def test_zero_boxes_are_a_usable_annotation():
    layout = Layout.of(INFO, ("boxes",))
    assert layout.take(SOURCE[0] | {"boxes": boxes()})["boxes"].shape == (0, 4)
    absent = SOURCE[0]
    del absent["boxes"]
    with pytest.raises(Unusable, match="it has no 'boxes' annotation"):
        layout.take(absent)
