import collections
import contextlib
import dataclasses

import numpy as np
import pytest

from fpn_jax.data import augmentation, crops, order, pipeline
from fpn_jax.data.records import FIELDS, BadRecord, SourceInfo
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError

SIZE = 2


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Records whose image is their index; some are bad."""

    size: int
    bad: frozenset = frozenset()
    info = SourceInfo(("cat", "dog"), ("label",))

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.bad:
            raise BadRecord(self.id(index), "the image is truncated")
        return {"image": np.full((3, 4, 3), index, np.uint8), "label": index % 2}

    def id(self, index):
        return f"number/{index}"


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
            "landmarks": np.full((5, 3), index, np.float32),
            "identity": np.int32(index),
        }
        return record | ({"boxes": None} if index in self.missing else {})

    def id(self, index):
        return f"annotated/{index}"


def unchanged(record, rng=None):
    return record


def augmented(record, rng):
    """Says which record it was, and what was drawn for it."""
    drawn = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    drawn[0, 0, 0] = record["image"][0, 0, 0]
    return record | {"image": drawn}


def resized(record):
    return record | {"image": record["image"][:SIZE, :SIZE]}


@contextlib.contextmanager
def closing(batches):
    try:
        yield batches
    finally:
        batches.close()


def train(steps, *, source=Numbers(20), batch=8, seed=1, start_step=0, **options):
    made = pipeline.train_batches(
        source,
        augmented,
        global_batch_size=batch,
        seed=seed,
        start_step=start_step,
        options=pipeline.Options(**options),
    )
    with closing(made):
        return [next(made) for _ in range(steps)]


def evaluate(source, batch=8, **options):
    made = pipeline.eval_batches(
        source,
        resized,
        image_size=SIZE,
        global_batch_size=batch,
        options=pipeline.Options(**options),
    )
    with closing(made):
        return list(made), made.skipped


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def rows(batch):
    """Returns a batch as a sorted list of whole examples."""
    return sorted(
        (int(i), int(label), float(w), image.tobytes())
        for i, label, w, image in zip(
            batch["index"],
            batch["label"],
            batch["weight"],
            batch["image"],
            strict=True,
        )
    )


def indices(batches):
    return np.concatenate([batch["index"] for batch in batches]).tolist()


def test_a_training_batch_holds_what_the_schema_says():
    (batch,) = train(1)
    assert {key: (a.shape, str(a.dtype)) for key, a in batch.items()} == {
        "image": ((8, SIZE, SIZE, 3), "uint8"),
        "label": ((8,), "int32"),
        "weight": ((8,), "float32"),
        "index": ((8,), "int32"),
    }
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    np.testing.assert_array_equal(batch["label"], batch["index"] % 2)
    np.testing.assert_array_equal(batch["weight"], 1)


def test_threads_change_nothing():
    assert_same(train(12, num_threads=8), train(12, num_threads=1))


def test_a_worker_process_changes_nothing():
    assert_same(train(3, num_workers=1), train(3))


def test_a_bad_file_in_a_worker_process_is_named_too():
    with pytest.raises(BadRecord, match="number/"):
        train(1, source=Numbers(8, frozenset(range(8))), num_workers=1)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_every_batch(count):
    alone = train(8)
    shares = [
        train(8, process_index=index, process_count=count) for index in range(count)
    ]
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert {len(part["index"]) for part in parts} == {8 // count}
        joined = {key: np.concatenate([p[key] for p in parts]) for key in batch}
        assert rows(joined) == rows(batch)


@pytest.mark.parametrize("start_step", [1, 5, 37])
def test_a_later_start_leaves_out_the_batches_before(start_step):
    whole = train(start_step + 4)
    assert_same(train(4, start_step=start_step), whole[start_step:])
    share = {"process_index": 1, "process_count": 2}
    cut = train(4, start_step=start_step, num_threads=1, **share)
    assert_same(cut, train(start_step + 4, **share)[start_step:])


def test_every_epoch_has_every_record_once_in_another_order():
    # Epochs of 20 records end in the middle of batches of 8.
    seen = indices(train(10))
    epochs = [tuple(seen[start : start + 20]) for start in range(0, 80, 20)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(20))
    assert len(set(epochs)) == 4
    assert tuple(range(20)) not in epochs


def test_another_seed_gives_another_order_and_other_draws():
    first, second = train(3, seed=1), train(3, seed=2)
    assert indices(first) != indices(second)
    drawn = [
        {row[0]: row[3] for batch in batches for row in rows(batch)}
        for batches in (first, second)
    ]
    both = drawn[0].keys() & drawn[1].keys()
    assert both
    assert all(drawn[0][index] != drawn[1][index] for index in both)


def test_augmentation_is_drawn_anew_for_every_record_and_epoch():
    batches = train(15)
    assert_same(train(15), batches)
    images = collections.defaultdict(set)
    for batch in batches:
        for row in rows(batch):
            images[row[0]].add(row[3])
    assert {len(drawn) for drawn in images.values()} == {6}
    without_index = {image[1:] for drawn in images.values() for image in drawn}
    assert len(without_index) == 6 * 20


def test_a_bad_file_stops_the_training_by_default():
    with pytest.raises(BadRecord) as caught:
        train(3, source=Numbers(20, frozenset({11})))
    assert caught.value.id == "number/11"
    assert "number/11: the image is truncated" in str(caught.value)


def test_skipped_files_give_way_to_the_next_good_ones(capsys):
    bad = frozenset({4, 5, 19})
    made = pipeline.train_batches(
        Numbers(20, bad),
        augmented,
        global_batch_size=20,
        seed=1,
        options=pipeline.Options(on_bad_file="skip"),
    )
    with closing(made):
        first = next(made)
        once = dict(made.skipped)
        next(made)
    substitutes = collections.Counter(set(range(20)) - bad) + collections.Counter(
        {6: 2, 0: 1}
    )
    assert collections.Counter(first["index"].tolist()) == substitutes
    assert once == {k: (f"number/{k}", "the image is truncated") for k in bad}
    assert made.skipped == once
    assert first.keys() == {"image", "label", "weight", "index"}
    np.testing.assert_array_equal(first["weight"], 1)
    np.testing.assert_array_equal(first["image"][:, 0, 0, 0], first["index"])
    np.testing.assert_array_equal(first["label"], first["index"] % 2)
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == [
        f"skipped: number/{k}: the image is truncated" for k in (19, 4, 5)
    ]


def test_skipping_moves_no_other_example():
    good = train(6)
    skipping = train(6, source=Numbers(20, frozenset({7})), on_bad_file="skip")
    for a, b in zip(good, skipping, strict=True):
        kept = a["index"] != 7
        np.testing.assert_array_equal(a["index"][kept], b["index"][kept])
        np.testing.assert_array_equal(a["image"][kept], b["image"][kept])
        assert set(b["index"][~kept]) <= {8}


def test_a_split_of_bad_files_alone_cannot_be_skipped():
    with pytest.raises(InputError, match="not one record of the training split"):
        train(1, source=Numbers(8, frozenset(range(8))), on_bad_file="skip")


def test_a_split_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match=r"7 records.*global_batch_size is 8, take 7"):
        train(1, source=Numbers(7))
    assert sorted(indices(train(1, source=Numbers(8)))) == list(range(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_file": "skpi"}, "data.on_bad_file 'skpi' is unknown.*'skip'.*stop"),
        ({"num_threads": 0}, r"data.num_threads is 0; it must be in \[1, 512\]"),
        ({"num_workers": -1}, r"data.num_workers is -1; it must be in \[0, 512\]"),
    ],
)
def test_options_out_of_their_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        pipeline.Options(**options)


@pytest.mark.parametrize("records", [1, 16, 37])
@pytest.mark.parametrize("num_threads", [1, 8])
def test_an_evaluation_sees_every_record_once_in_order(records, num_threads):
    batches, skipped = evaluate(Numbers(records), 16, num_threads=num_threads)
    assert skipped == {}
    assert {len(batch["index"]) for batch in batches} == {16}
    assert len(batches) == -(-records // 16)
    index = np.array(indices(batches))
    weight = np.concatenate([batch["weight"] for batch in batches])
    image = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(index[:records], np.arange(records))
    np.testing.assert_array_equal(index[records:], -1)
    np.testing.assert_array_equal(weight, index >= 0)
    np.testing.assert_array_equal(image[:, 0, 0, 0], np.maximum(index, 0))
    assert {str(batches[0][key].dtype) for key in ("label", "index")} == {"int32"}
    assert (image.shape[1:], str(image.dtype)) == ((SIZE, SIZE, 3), "uint8")


@pytest.mark.parametrize("records", [1, 9, 17])
def test_evaluating_processes_have_the_same_number_of_batches(records):
    alone, _ = evaluate(Numbers(records))
    shares = [
        evaluate(Numbers(records), process_index=index, process_count=4)[0]
        for index in range(4)
    ]
    assert {len(share) for share in shares} == {len(alone)}
    assert {len(b["index"]) for share in shares for b in share} == {2}
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        joined = {key: np.concatenate([p[key] for p in parts]) for key in batch}
        assert rows(joined) == rows(batch)


def test_a_bad_file_stops_the_evaluation_by_default():
    with pytest.raises(BadRecord) as caught:
        evaluate(Numbers(10, frozenset({9})))
    assert caught.value.id == "number/9"


def test_a_skipped_file_weighs_nothing_in_an_evaluation(capsys):
    batches, skipped = evaluate(Numbers(10, frozenset({3, 9})), on_bad_file="skip")
    assert skipped == {k: (f"number/{k}", "the image is truncated") for k in (3, 9)}
    assert indices(batches) == [*range(10), *[-1] * 6]
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert np.flatnonzero(weight).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert capsys.readouterr().err.count("skipped: number/") == 2


def test_a_bad_file_is_read_once(capsys):
    class Flaky(Numbers):
        def __getitem__(self, index):
            if index == 2 and not tried:
                tried.append(index)
                raise BadRecord(self.id(index), "gone for a moment")
            return super().__getitem__(index)

    tried = []
    _, skipped = evaluate(Flaky(8), on_bad_file="skip")
    assert skipped == {2: ("number/2", "gone for a moment")}
    assert "skipped: number/2: gone for a moment" in capsys.readouterr().err


def test_a_bad_file_of_another_process_is_read_to_know_why():
    source = Numbers(10, frozenset({3}))
    assert pipeline.why_bad(source, 3) == ("number/3", "the image is truncated")
    assert pipeline.why_bad(source, 4)[1] == "another process could not use it"


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
