"""Batches hold the fields that a task asks for, padded to fixed shapes."""

import dataclasses

import numpy as np
import pytest

from fpn_jax.data import augmentation, crops, order, pipeline
from fpn_jax.data.records import FIELDS, BadRecord
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError
from tests.data.test_pipeline import SIZE, Numbers, assert_same, closing, unchanged

INFO = DrawnSource("train", 8).info


@dataclasses.dataclass(frozen=True)
class Annotated:
    """Records with as many boxes as their index; some lack the annotation."""

    size: int
    missing: frozenset = frozenset()
    info = INFO

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        record = {
            "image": np.full((SIZE, SIZE, 3), index, np.uint8),
            "label": index % 2,
            "mask": np.full((SIZE, SIZE), index % 2, np.uint8),
            "boxes": np.full((index, 4), (0, 0, 1, 1), np.float32),
            "box_labels": np.full(index, index % 2, np.int32),
            "box_crowd": np.zeros(index, np.int32),
            "box_identities": np.full(index, index, np.int32),
            "landmarks": np.full((5, 3), index, np.float32),
            "identity": np.int32(index),
        }
        return record | ({"boxes": None} if index in self.missing else {})

    def id(self, index):
        return f"annotated/{index}"


def annotated(fields, *, source=Annotated(6), max_boxes=4, **options):
    """Returns the two batches of an evaluation of six records."""
    made = pipeline.eval_batches(
        source,
        unchanged,
        image_size=SIZE,
        global_batch_size=4,
        fields=fields,
        max_boxes=max_boxes,
        options=pipeline.Options(**options),
    )
    with closing(made):
        return list(made), made


SHAPES = {
    "label": (),
    "mask": (SIZE, SIZE),
    "boxes": (4, 4),
    "box_labels": (4,),
    "box_crowd": (4,),
    "box_identities": (4,),
    "landmarks": (5, 3),
    "identity": (),
}


@pytest.mark.parametrize("fields", [(), ("mask",), ("boxes", "label"), tuple(FIELDS)])
def test_a_batch_holds_the_asked_fields_at_fixed_shapes(fields):
    (first, last), _ = annotated(fields)
    for batch in (first, last):
        assert batch.keys() == {"image", "weight", "index", *fields}
        for name in fields:
            assert batch[name].shape == (4, *SHAPES[name])
            assert batch[name].dtype == FIELDS[name].dtype
    for name in fields:
        assert (last[name][2:] == FIELDS[name].padding).all()


def test_fields_follow_their_image():
    (first, last), _ = annotated(FIELDS)
    for batch in (first, last):
        for slot, index in enumerate(batch["index"]):
            if index < 0:
                continue
            assert (batch["image"][slot] == index).all()
            assert (batch["mask"][slot] == index % 2).all()
            assert (batch["landmarks"][slot] == index).all()
            assert batch["identity"][slot] == index
            count = min(index, 4)
            assert batch["boxes"][slot].sum() == 2 * count
            assert (batch["box_labels"][slot] >= 0).sum() == count


def test_too_many_boxes_are_counted_and_reported_once(capsys):
    _, made = annotated(("boxes",), max_boxes=2)
    assert made.boxes_over_limit == 1 + 2 + 3
    assert made.boxes_out_of_view == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "record 3 has 3 boxes, but a batch has room for 2 of each image"
    )


def test_a_missing_annotation_is_a_bad_record_and_no_box_is_not():
    source = Annotated(6, frozenset({3}))
    with pytest.raises(BadRecord, match="annotated/3: it has no 'boxes' annotation"):
        annotated(("boxes",), source=source)
    batches, made = annotated(("boxes",), source=source, on_bad_file="skip")
    assert made.skipped == {3: ("annotated/3", "it has no 'boxes' annotation")}
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert weight.tolist() == [1, 1, 1, 0, 1, 1, 0, 0]
    batches, made = annotated(("mask",), source=source)
    assert made.skipped == {}


def test_training_skips_a_missing_annotation():
    made = pipeline.train_batches(
        Annotated(6, frozenset({3})),
        unchanged,
        global_batch_size=6,
        seed=0,
        fields=("boxes",),
        options=pipeline.Options(on_bad_file="skip"),
    )
    with closing(made):
        batch = next(made)
    assert sorted(batch["index"].tolist()) == [0, 1, 2, 4, 4, 5]
    assert made.skipped.keys() == {3}


def test_a_field_that_the_source_lacks_is_refused_at_once():
    with pytest.raises(InputError, match=r"this data has no 'mask'.*fields are label"):
        annotated(("mask",), source=Numbers(4))
    with pytest.raises(InputError, match="this data has no 'boxes'"):
        pipeline.train_batches(
            Numbers(4), unchanged, global_batch_size=2, seed=0, fields=("boxes",)
        )


def test_workers_hand_over_every_field():
    alone, _ = annotated(FIELDS)
    by_workers, made = annotated(FIELDS, num_workers=1)
    assert_same(by_workers, alone)
    assert made.boxes_over_limit == 1


AUGMENT = {
    "crop_scale": (0.2, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "flip": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "randaugment_layers": 2,
    "randaugment_magnitude": 9,
    "erasing": 0.25,
}


def drawn_batches(steps, **options):
    made = pipeline.train_batches(
        DrawnSource("train", 32),
        augmentation.build_train(24, **AUGMENT),
        global_batch_size=8,
        seed=3,
        fields=FIELDS,
        max_boxes=2,
        options=pipeline.Options(**options),
    )
    with closing(made):
        return [next(made) for _ in range(steps)], made


def test_workers_augment_every_field_as_threads_do():
    alone, made = drawn_batches(6)
    by_workers, other = drawn_batches(6, num_workers=2)
    assert_same(by_workers, alone)
    assert other.boxes_out_of_view == made.boxes_out_of_view > 0
    assert made.boxes_over_limit == 0
    boxes = sum((batch["box_labels"] >= 0).sum() for batch in alone)
    assert boxes + made.boxes_out_of_view == 6 * 8


def test_fields_are_augmented_as_their_image():
    (first, *_), _ = drawn_batches(1)
    source, stack = DrawnSource("train", 32), augmentation.build_train(24, **AUGMENT)
    for position, index in enumerate(first["index"].tolist()):
        record = source[index] | {"mirrored": source.info.mirrored}
        moved = stack(record, order.generator_at(3, position))
        for name in ("image", "label", "mask", "landmarks", "identity"):
            np.testing.assert_array_equal(first[name][position], moved[name])
        count = len(moved["boxes"])
        np.testing.assert_array_equal(first["boxes"][position, :count], moved["boxes"])


@pytest.mark.parametrize(
    "transform", [augmentation.build_eval(24, 0.875), crops.Letterbox(24)]
)
def test_an_evaluation_has_the_fields_of_the_transformed_image(transform):
    source = DrawnSource("test", 32, test_records=5)
    made = pipeline.eval_batches(
        source, transform, image_size=24, global_batch_size=3, fields=FIELDS
    )
    with closing(made):
        batches = list(made)
    placement = transform.placement((32, 32))
    for batch in batches:
        for slot, index in enumerate(batch["index"].tolist()):
            if index < 0:
                continue
            record = source[index]
            np.testing.assert_array_equal(
                batch["mask"][slot], placement.mask(record["mask"])
            )
            moved = placement.boxes(record["boxes"]).boxes
            np.testing.assert_array_equal(batch["boxes"][slot, : len(moved)], moved)
            points = placement.points(record["landmarks"])
            np.testing.assert_array_equal(batch["landmarks"][slot], points)
