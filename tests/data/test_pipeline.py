import collections
import contextlib
import dataclasses

import numpy as np
import pytest

from fpn_jax.data import pipeline
from fpn_jax.data.records import BadRecord, SourceInfo
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
