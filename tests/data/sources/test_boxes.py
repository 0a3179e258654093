"""Boxes in VOC XML files and in tables."""

import numpy as np
import pytest

from fpn_jax.data.check import check
from fpn_jax.data.records import AbsentSplit, BadRecord
from fpn_jax.data.sources.boxes import BoxesSource
from fpn_jax.errors import InputError
from tests.data.sources import annotated_files as write

TABLE = """image_name,xmin,ymin,xmax,ymax,species,image_width,image_height
a,3,4,12,10,dog,30,20
b.jpg,1,1,30,20,cat,30,20
a,1,1,2,2,cat,30,20
c,,,,,,,
"""
EXPECTED = {
    "a": ([[2, 3, 12, 10], [0, 0, 2, 2]], [1, 0]),
    "b": ([[0, 0, 30, 20]], [0]),
    "c": ([], []),
}


@pytest.fixture
def root(tmp_path):
    for name in "abcd":
        write.photograph(tmp_path / "photos" / f"{name}.jpg")
    boxes = {"a": [("dog", 3, 4, 12, 10), ("cat", 1, 1, 2, 2)], "c": []}
    for name, found in (boxes | {"b": [("cat", 1, 1, 30, 20)]}).items():
        write.xml(tmp_path / "xmls" / f"{name}.xml", found)
    (tmp_path / "table.csv").write_text(TABLE)
    return tmp_path


def source(root, split="train", **arguments):
    given = {"annotations": "xmls", "validate_fraction": 0.0}
    return BoxesSource(root, split, **(given | arguments))


@pytest.mark.parametrize(
    "arguments", [{}, {"annotations": "table.csv", "csv_origin": 1}]
)
def test_a_table_and_xml_files_say_the_same(root, arguments):
    made = source(root, **arguments)
    assert made.info.classes == ("cat", "dog")
    assert made.remarks == ("1 photographs have no annotation and are omitted",)
    for index, name in enumerate("abc"):
        boxes, labels = EXPECTED[name]
        record = made[index]
        assert made.id(index).endswith(f"{name}.jpg")
        assert record["boxes"].shape == (len(boxes), 4)
        assert record["boxes"].tolist() == boxes
        assert record["box_labels"].tolist() == labels
    assert check(made).passed


def test_a_table_of_continuous_coordinates_is_not_shifted(root):
    made = source(root, annotations="table.csv")
    assert made[0]["boxes"][0].tolist() == [3, 4, 12, 10]


def test_splits_are_disjoint_and_the_test_is_absent_without_a_share(root):
    arguments = {"validate_fraction": 0.4, "test_fraction": 0.3}
    names = []
    for split in ("train", "validate", "test"):
        try:
            made = source(root, split, **arguments)
        except InputError:
            continue
        names += [made.id(i) for i in range(len(made))]
    assert len(names) == len(set(names)) == 3
    with pytest.raises(AbsentSplit):
        source(root, "test")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_turn_with_a_photograph_that_exif_turns(tmp_path, orientation):
    """The stored photograph is 30 × 20; the box is a bright patch in it."""
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[4:10, 3:12] = 255
    exif = write.Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.jpg"
    write.Image.fromarray(stored).save(path, quality=95, exif=exif)
    write.xml(tmp_path / "xmls" / "a.xml", [("cat", 4, 5, 12, 10)])
    record = source(tmp_path)[0]
    assert record["image"].shape == (30, 20, 3)
    rows, columns = np.nonzero(record["image"].mean(-1) > 128)
    patch = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert record["boxes"].tolist() == [patch]


@pytest.mark.parametrize(
    ("boxes", "size", "text"),
    [
        ([("cow", 1, 1, 2, 2)], (30, 20), "has the class 'cow'; the classes are cat"),
        ([("cat", 1, 1, 2, 2)], (31, 20), "is of 31 × 20 pixels, the image of 30 × 20"),
        ([("cat", "x", 1, 2, 2)], (30, 20), "bndbox/xmin is 'x', which is no number"),
        ([("", 1, 1, 2, 2)], (30, 20), "object 0 has no name of a class"),
    ],
)
def test_a_wrong_annotation_is_named(root, boxes, size, text):
    write.xml(root / "xmls" / "a.xml", boxes, size)
    with pytest.raises(BadRecord, match=text):
        source(root, classes=("cat", "dog"))[0]


def test_a_file_that_is_no_xml_is_named(root):
    (root / "xmls" / "a.xml").write_text("<annotation>")
    with pytest.raises(BadRecord, match=r"a\.xml is no valid XML"):
        source(root)[0]


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ((12, 4, 3, 10), "is empty or reversed"),
        ((4, 5, 3, 10), "is empty or reversed"),
        ((3, 4, 40, 10), "reaches beyond the image of 30 × 20 pixels"),
        ((-3, 4, 12, 10), "reaches beyond the image of 30 × 20 pixels"),
    ],
)
def test_check_names_a_box_that_breaks_a_rule(root, box, rule):
    write.xml(root / "xmls" / "b.xml", [("cat", 1, 1, 9, 9), ("dog", *box)])
    findings = check(source(root))
    (line,) = findings.text().splitlines()[:1]
    assert "b.jpg: boxes: box 1" in line
    assert rule in line
    assert not findings.passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,a\n", "has no column for image, such as 'image'"),
        (TABLE.replace("3,4,12", "3,x,12"), r"line 2: \['3', 'x', '12', '10'\] are no"),
        (TABLE + "\n,1,2,3,4,cat,30,20", "names no image"),
        (TABLE + "\na.jpg,1,2,3,4,cat,30,20,9,9", "has more values than the"),
    ],
)
def test_a_wrong_table_is_named(root, text, message):
    (root / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        source(root, annotations="table.csv")


def test_paths_that_do_not_exist_and_equal_names_are_refused(root):
    with pytest.raises(InputError, match="nowhere, which does not exist; give a"):
        source(root, annotations="nowhere")
    with pytest.raises(InputError, match="give the folder of the photographs"):
        source(root / "nowhere")
    write.photograph(root / "more" / "a.jpg")
    with pytest.raises(InputError, match="have the same name, by which their"):
        source(root)


def test_an_annotation_without_a_photograph_is_noted(root):
    write.xml(root / "xmls" / "z.xml", [])
    assert source(root).notes == ("1 annotations have no photograph: z",)
