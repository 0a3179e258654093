import dataclasses
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import check as check_module
from fpn_jax.data.check import Findings, check
from fpn_jax.data.records import BadRecord, SourceInfo
from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.data.sources.folder import FolderSource


class Numbers:
    """Records that are bad where their index is a multiple of seven."""

    info = SourceInfo(("cat", "dog"), ("label",))

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index % 7 == 0:
            raise BadRecord(self.id(index), "the image is truncated")
        return {"image": np.zeros((2, 2, 3), np.uint8), "label": index % 2}

    def id(self, index):
        return f"number/{index}"


@pytest.mark.parametrize("num_threads", [1, 8])
def test_every_bad_record_is_named_in_order(monkeypatch, num_threads):
    monkeypatch.setattr(check_module, "_RECORDS_PER_ROUND", 10)
    report = check(Numbers(33), num_threads)
    assert report.total == 33
    assert report.bad == tuple(
        (f"number/{k}", "the image is truncated") for k in (0, 7, 14, 21, 28)
    )
    assert report.counts == {"cat": 14, "dog": 14}
    assert report.text().splitlines() == [
        *(f"number/{k}: the image is truncated" for k in (0, 7, 14, 21, 28)),
        "33 records: 5 cannot be used (good by class: cat 14, dog 14)",
    ]


def test_a_good_source():
    report = Findings(3, (), {"cat": 1, "dog": 2})
    assert (
        report.text() == "3 records: all can be decoded (good by class: cat 1, dog 2)"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.total = 4


def test_a_folder_is_read_and_not_changed(tmp_path):
    for name in (
        "train/cat/1.png",
        "train/dog/1.png",
        "train/dog/2.png",
        "val/cat/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 5)).save(tmp_path / name)
    bad = tmp_path / "train/dog/1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    report = check(FolderSource(tmp_path, "train"))
    assert [id for id, _ in report.bad] == [str(bad)]
    assert report.counts == {"cat": 1, "dog": 1}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_other_errors_are_not_taken_for_bad_records():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise TypeError("a mistake in the program")

    with pytest.raises(TypeError, match="a mistake in the program"):
        check(Broken(50))


def test_an_interrupt_ends_soon():
    decoded = []

    class Slow(Numbers):
        def __getitem__(self, index):
            time.sleep(0.02)
            decoded.append(threading.get_ident())
            if index == 5:
                raise KeyboardInterrupt
            return {"image": np.zeros((2, 2, 3), np.uint8), "label": 0}

    with pytest.raises(KeyboardInterrupt):
        check(Slow(2000), num_threads=2)
    assert len(decoded) < 100


def test_a_class_without_images_is_named():
    text = Findings(3, (), {"cat": 3, "dog": 0}).text()
    assert text.splitlines()[0] == "no image of class dog"


ANIMALS = DrawnSource("test", 16, test_records=8)


class Spoiled:
    """Drawn records, one of which is spoiled."""

    info = ANIMALS.info

    def __init__(self, **changes):
        self.changes = changes

    def __len__(self):
        return len(ANIMALS)

    def __getitem__(self, index):
        return ANIMALS[index] | (self.changes if index == 5 else {})

    def id(self, index):
        return ANIMALS.id(index)


def test_drawn_records_pass():
    report = check(ANIMALS)
    assert report.passed
    assert report.annotations == ()
    assert report.missing == {}


def test_a_wrong_annotation_is_named_with_its_record_field_and_rule():
    far = np.array([[0, 0, 17, 9]], np.float32)
    report = check(Spoiled(boxes=far, identity=-1))
    assert not report.passed
    assert report.bad == ()
    assert [row[:2] for row in report.annotations] == [
        ("drawn/test/5", "boxes"),
        ("drawn/test/5", "identity"),
    ]
    lines = report.text().splitlines()
    assert lines[0] == (
        "drawn/test/5: boxes: box 0, [0.0, 0.0, 17.0, 9.0], reaches beyond the image "
        "of 16 × 16 pixels"
    )
    assert lines[-1] == (
        "8 records: all can be decoded, 2 annotations are wrong "
        "(good by class: cat 4, dog 4)"
    )


def test_no_annotation_is_counted_and_an_empty_one_is_not():
    report = check(Spoiled(boxes=None, box_labels=None))
    assert report.passed
    assert report.missing == {"boxes": 1, "box_labels": 1}
    assert "1 records have no 'boxes' annotation" in report.text()
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    assert check(Spoiled(boxes=empty[0], box_labels=empty[1])).missing == {}


def test_a_label_outside_of_the_classes_is_a_wrong_annotation():
    report = check(Spoiled(label=2))
    assert [row[1] for row in report.annotations] == ["label"]
    assert sum(report.counts.values()) == 7
    assert len(report.good) == 8


def test_a_source_without_labels_has_no_classes_to_count():
    class Unlabelled(Spoiled):
        info = SourceInfo(("cat", "dog"), ("identity",))

    assert check(Unlabelled()).text() == "8 records: all can be decoded"
