"""The same boxes from every format, and every fault of a file named."""

import json
import pathlib

import numpy as np
import pytest

from fpn_jax.data.check import check
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.boxes import BoxesSource
from fpn_jax.data.sources.coco import CocoSource
from fpn_jax.errors import InputError
from tests.data.sources import annotated_files as write
from tests.data.sources.box_files import (
    BOXES,
    SIZES,
    coco_source,
    labelme,
    named,
    write_all,
    write_coco,
)

DATA = pathlib.Path(__file__).parents[3] / "../shared/data/coco128_small"


@pytest.fixture
def root(tmp_path):
    write_all(tmp_path)
    return tmp_path


def boxes_source(root, annotations, **given):
    return BoxesSource(
        root, "train", annotations=annotations, validate_fraction=0.0, **given
    )


@pytest.mark.parametrize("kind", ["voc", "table.csv", "yolo", "labelme", "coco"])
def test_every_format_gives_the_same_boxes(root, kind):
    made = coco_source(root) if kind == "coco" else boxes_source(root, kind)
    assert made.info.classes == ("cat", "dog")
    assert made.info.fields == ("boxes", "box_labels", "box_crowd")
    assert check(made).passed
    assert len(made) == len(SIZES)
    for index in range(len(made)):
        name = made.id(index).rsplit("/", 1)[1].removesuffix(".jpg")
        record = made[index]
        expected = np.array([box for _, box in BOXES[name]]).reshape(-1, 4)
        np.testing.assert_allclose(record["boxes"], expected, atol=1e-3)
        labels = [int(k == "dog") for k, _ in BOXES[name]]
        assert record["box_labels"].tolist() == labels
        assert record["box_crowd"].tolist() == [0] * len(labels)


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_of_a_turned_photograph_turn_or_are_of_the_upright_one(root, orientation):
    path = root / "photos" / "wide.jpg"
    write.photograph(path, SIZES["wide"], orientation)
    upright = {3: (10, 2, 36, 18), 6: (2, 4, 18, 30)}[orientation]
    for made in (boxes_source(root, "labelme"), coco_source(root)):
        index = named(made, "wide.jpg")
        if orientation == 3:
            # The size tells nothing, so the photograph is refused.
            with pytest.raises(BadRecord, match="store the image upright"):
                made[index]
        else:
            np.testing.assert_allclose(made[index]["boxes"][0], upright)
    # YOLO's shares have no size: they are those of the picture that is seen.
    made = boxes_source(root, "yolo")
    index = named(made, "wide.jpg")
    height, width = made[index]["image"].shape[:2]
    np.testing.assert_allclose(
        made[index]["boxes"][1], (0, 0, width, height), atol=1e-3
    )


FAULTS_OF_YOLO = {
    "0 0.5 0.5 0.2": "line 1 has 4 numbers; it must have 5",
    "0 0.5 0.5 0.2 0.2 0.9": "line 1 has 6 numbers",
    "2 0.5 0.5 0.2 0.2": "line 1 has the class 2, which has no name; there are 2",
    "-1 0.5 0.5 0.2 0.2": "has the class -1, which has no name",
    "cat 0.5 0.5 0.2 0.2": "line 1: the class 'cat' is no whole number",
    "0.5 0.5 0.5 0.2 0.2": "the class '0.5' is no whole number",
    "0 0.5 0.5 x 0.2": "line 1: '0.5 0.5 x 0.2' are no four numbers",
    "0 20 10 8 8": "the box 20 10 8 8 reaches beyond the image.*are these pixels",
    "0 0.9 0.5 0.4 0.2": "reaches beyond the image; the numbers are shares",
    "0 nan 0.5 0.2 0.2": "has a number that is not finite",
}


@pytest.mark.parametrize("line", FAULTS_OF_YOLO)
def test_faults_of_a_yolo_file_are_named(root, line):
    (root / "yolo" / "tall.txt").write_text(line)
    made = boxes_source(root, "yolo")
    index = named(made, "tall.jpg")
    with pytest.raises(BadRecord, match=FAULTS_OF_YOLO[line]):
        made[index]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "path: x\nnames: ['cat', 'dog']\n"),
        ("classes.txt", "cat\ndog\n\n"),
        ("obj.names", "cat\ndog"),
    ],
)
def test_names_of_yolo_are_beside_or_above_the_files(root, name, text):
    (root / "yolo" / "data.yaml").unlink()
    with pytest.raises(InputError, match="numbers of classes without names: add"):
        boxes_source(root, "yolo")
    given = boxes_source(root, "yolo", classes=("cat", "dog"))
    assert given.info.classes == ("cat", "dog")
    for folder in (root / "yolo", root):
        (folder / name).write_text(text)
        assert boxes_source(root, "yolo").info.classes == ("cat", "dog")
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: {0: cat, 2: dog}", r"names have the numbers \[0, 2\]"),
        ("names: [", "is no valid YAML"),
        ("names: [cat, cat]", "the name 'cat' is there twice"),
        ("names: [cat, no]", "the name False is no text; put it in quotes"),
    ],
)
def test_faults_of_the_names_of_yolo_are_named(root, text, reason):
    (root / "yolo" / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=reason):
        boxes_source(root, "yolo")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("[1, 2]", "has no list 'shapes'"),
        ("{", "tall.json is no valid JSON"),
        ({"shape_type": "circle"}, "shape 0 is of type 'circle'"),
        ({"points": [[1, 2, 3]]}, "shape 0 has no points"),
        ({"points": []}, "shape 0 has no points"),
        ({"points": [[1, 2]]}, "shape 0 has one point"),
        ('{"shapes": [3]}', "shape 0 is 3, which is no object"),
        ('{"shapes": [], "imageHeight": "a", "imageWidth": 4}', "must be whole"),
        ('{"categories": []}', r"read by --config\.data\.source\.name=coco"),
        ({"label": " "}, "shape 0 has no label"),
        ({"label": "cow"}, "has the class 'cow'; the classes are cat, dog"),
    ],
)
def test_faults_of_a_labelme_file_are_named(root, change, reason):
    found = labelme("tall")
    if isinstance(change, dict):
        found["shapes"][0] |= change
    text = change if isinstance(change, str) else json.dumps(found)
    (root / "labelme" / "tall.json").write_text(text)
    made = boxes_source(root, "labelme", classes=("cat", "dog"))
    index = named(made, "tall.jpg")
    with pytest.raises(BadRecord, match=reason):
        made[index]


def test_names_in_folders_below_must_agree(root):
    for split in ("train", "val"):
        (root / "yolo" / split).mkdir()
        (root / "yolo" / split / "classes.txt").write_text("cat\ndog\n")
    (root / "yolo" / "data.yaml").unlink()
    assert boxes_source(root, "yolo").info.classes == ("cat", "dog")
    (root / "yolo" / "val" / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="have different names of classes; give"):
        boxes_source(root, "yolo")
    (root / "yolo" / "val" / "classes.txt").write_text("\n")
    with pytest.raises(InputError, match=r"classes\.txt has no names; write one"):
        boxes_source(root, "yolo")


def test_a_file_of_coco_is_directed_to_its_source(root):
    with pytest.raises(InputError, match=r"read by --config\.data\.source\.name=coco"):
        boxes_source(root, "coco.json")


def test_two_formats_in_a_folder_and_two_files_of_one_name_are_refused(root):
    write.xml(root / "labelme" / "wide.xml", [])
    with pytest.raises(InputError, match=r"has 1 \.xml files and 3 \.json files"):
        boxes_source(root, "labelme")
    write.xml(root / "voc" / "more" / "wide.xml", [])
    with pytest.raises(InputError, match="have the same name, by which their photo"):
        boxes_source(root, "voc")
    (root / "none").mkdir()
    with pytest.raises(InputError, match=r"neither a \.csv file nor a folder"):
        boxes_source(root, "none")


def test_difficult_objects_of_voc_and_crowds_of_coco_are_crowds(root):
    path = root / "voc" / "tall.xml"
    text = path.read_text().replace("</object>", "<difficult>1</difficult></object>")
    path.write_text(text)

    def crowd(found):
        found["annotations"][2]["iscrowd"] = 1

    write_coco(root / "coco.json", crowd)
    for made in (boxes_source(root, "voc"), coco_source(root)):
        index = named(made, "tall.jpg")
        assert made[index]["box_crowd"].tolist() == [1]


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data has no coco128_small")
def test_three_numberings_of_one_set_name_the_same_animals():
    by_coco = CocoSource(
        DATA / "images",
        "train",
        annotations=str(DATA / "annotations" / "instances_train2017.json"),
        validate_fraction=0.0,
    )
    assert len(by_coco) == 100
    assert by_coco.info.class_ids[by_coco.info.classes.index("cat")] == 17
    by_yolo = BoxesSource(
        DATA / "images",
        "train",
        annotations="../labels",
        classes=by_coco.info.classes,
        validate_fraction=0.0,
    )
    assert by_coco.info.classes[15:17] == ("cat", "dog")
    places = {by_yolo.id(i): i for i in range(len(by_yolo))}
    compared = 0
    for index in range(len(by_coco)):
        one, place = by_coco[index], places.get(by_coco.id(index))
        if place is None:
            # YOLO has no file for a photograph without an object.
            assert not len(one["boxes"])
            continue
        other = by_yolo[place]
        for label in (15, 16):
            ours = one["boxes"][one["box_labels"] == label]
            theirs = other["boxes"][other["box_labels"] == label]
            assert len(ours) == len(theirs)
            for box in ours:
                # The boxes of the JSON were computed from shrunk masks.
                assert np.abs(theirs - box).max(axis=1).min() < 4
                compared += 1
    assert compared > 5
