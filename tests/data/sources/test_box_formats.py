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

DATA = pathlib.Path(__file__).parents[3] / "../shared/data/coco128_small"
SIZES = {"wide": (40, 20), "tall": (16, 30), "empty": (24, 24)}
"""Name of a photograph → its width and height."""
BOXES = {
    "wide": [("dog", (4, 2, 30, 18)), ("cat", (0, 0, 40, 20))],
    "tall": [("cat", (2, 5, 9, 29))],
    "empty": [],
}
"""Name of a photograph → class and x0, y0, x1, y1 of its boxes, continuous."""
IDS = {"cat": 17, "dog": 18}


@pytest.fixture
def root(tmp_path):
    for name, size in SIZES.items():
        write.photograph(tmp_path / "photos" / f"{name}.jpg", size)
    write_voc(tmp_path / "voc")
    write_table(tmp_path / "table.csv")
    write_yolo(tmp_path / "yolo")
    write_labelme(tmp_path / "labelme")
    write_coco(tmp_path / "coco.json")
    return tmp_path


def write_voc(folder):
    for name, boxes in BOXES.items():
        numbers = [(k, x0 + 1, y0 + 1, x1, y1) for k, (x0, y0, x1, y1) in boxes]
        write.xml(folder / f"{name}.xml", numbers, SIZES[name])


def write_table(path):
    lines = ["image,xmin,ymin,xmax,ymax,class"]
    for name, boxes in BOXES.items():
        lines += [f"{name}.jpg,{','.join(map(str, b))},{k}" for k, b in boxes]
        lines += [] if boxes else [f"{name}.jpg,,,,,"]
    path.write_text("\n".join(lines))


def write_yolo(folder, names="names:\n  0: cat\n  1: dog\n"):
    folder.mkdir()
    (folder / "data.yaml").write_text(names)
    for name, boxes in BOXES.items():
        width, height = SIZES[name]
        (folder / f"{name}.txt").write_text(
            "".join(
                f"{int(k == 'dog')} {(x0 + x1) / 2 / width:.6f} "
                f"{(y0 + y1) / 2 / height:.6f} {(x1 - x0) / width:.6f} "
                f"{(y1 - y0) / height:.6f}\n"
                for k, (x0, y0, x1, y1) in boxes
            )
        )


def labelme(name):
    width, height = SIZES[name]
    shapes = []
    for number, (k, (x0, y0, x1, y1)) in enumerate(BOXES[name]):
        # The corners of a rectangle may be in any order; a polygon has many.
        rectangle = {"shape_type": "rectangle", "points": [[x1, y0], [x0, y1]]}
        corners = [[x0, y0], [x1, (y0 + y1) / 2], [x0, y1]]
        polygon = {"shape_type": "polygon", "points": corners}
        shapes.append({"label": k} | (polygon if number else rectangle))
    return {"shapes": shapes, "imageHeight": height, "imageWidth": width}


def write_labelme(folder):
    folder.mkdir()
    for name in BOXES:
        (folder / f"{name}.json").write_text(json.dumps(labelme(name)))


def coco():
    images, annotations = [], []
    for number, (name, (width, height)) in enumerate(SIZES.items(), start=5):
        images.append(
            {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height}
        )
        for k, (x0, y0, x1, y1) in BOXES[name]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": IDS[k],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
            )
    # The order of the categories is not that of their numbers.
    categories = [{"id": number, "name": k} for k, number in IDS.items()][::-1]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(path, change=lambda found: None):
    found = coco()
    change(found)
    path.write_text(json.dumps(found))


def boxes_source(root, annotations, **given):
    return BoxesSource(
        root, "train", annotations=annotations, validate_fraction=0.0, **given
    )


def coco_source(root, **given):
    given = {"annotations": "coco.json", "validate_fraction": 0.0} | given
    return CocoSource(root, "train", **given)


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
        (index,) = (i for i in range(3) if made.id(i).endswith("wide.jpg"))
        if orientation == 3:
            # The size tells nothing, so the photograph is refused.
            with pytest.raises(BadRecord, match="store the image upright"):
                made[index]
        else:
            np.testing.assert_allclose(made[index]["boxes"][0], upright)
    # YOLO's shares have no size: they are those of the picture that is seen.
    made = boxes_source(root, "yolo")
    (index,) = (i for i in range(3) if made.id(i).endswith("wide.jpg"))
    height, width = made[index]["image"].shape[:2]
    np.testing.assert_allclose(
        made[index]["boxes"][1], (0, 0, width, height), atol=1e-3
    )


FAULTS_OF_YOLO = {
    "0 0.5 0.5 0.2": "line 1 has 4 numbers; it must have 5",
    "0 0.5 0.5 0.2 0.2 0.9": "line 1 has 6 numbers",
    "2 0.5 0.5 0.2 0.2": "line 1 has the class 2, which has no name; there are 2",
    "-1 0.5 0.5 0.2 0.2": "has the class -1, which has no name",
    "cat 0.5 0.5 0.2 0.2": "line 1: 'cat 0.5 0.5 0.2 0.2' are no five numbers",
    "0.5 0.5 0.5 0.2 0.2": "are no five numbers",
    "0 20 10 8 8": "the box 20 10 8 8 reaches beyond the image.*are these pixels",
    "0 0.9 0.5 0.4 0.2": "reaches beyond the image; the numbers are shares",
    "0 nan 0.5 0.2 0.2": "reaches beyond the image",
}


@pytest.mark.parametrize("line", FAULTS_OF_YOLO)
def test_faults_of_a_yolo_file_are_named(root, line):
    (root / "yolo" / "tall.txt").write_text(line)
    made = boxes_source(root, "yolo")
    (index,) = (i for i in range(3) if made.id(i).endswith("tall.jpg"))
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
    (index,) = (i for i in range(3) if made.id(i).endswith("tall.jpg"))
    with pytest.raises(BadRecord, match=reason):
        made[index]


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
        (index,) = (i for i in range(3) if made.id(i).endswith("tall.jpg"))
        assert made[index]["box_crowd"].tolist() == [1]


FAULTS_OF_COCO = {
    "no list 'categories'": lambda f: f.pop("categories"),
    "category at place 0: id is '18'": lambda f: f["categories"][0].update(id="18"),
    "the id 17 is there twice": lambda f: f["categories"][0].update(id=17),
    "the name of a category 'cat' is there twice": (
        lambda f: f["categories"][0].update(name="cat")
    ),
    "image: the id 6 is there twice": lambda f: f["images"][0].update(id=6),
    "the file name 'tall.jpg' is there twice": (
        lambda f: f["images"][0].update(file_name="tall.jpg")
    ),
    "annotation: the id 2 is there twice": lambda f: f["annotations"][0].update(id=2),
    "annotation 1 has the image_id 99, which no image has": (
        lambda f: f["annotations"][0].update(image_id=99)
    ),
    "annotation 1 has the category_id 1, which no category has": (
        lambda f: f["annotations"][0].update(category_id=1)
    ),
    r"annotation 1: bbox is \[1, 2, 3\]": (
        lambda f: f["annotations"][0].update(bbox=[1, 2, 3])
    ),
    "annotation 1: bbox is .*nan": (
        lambda f: f["annotations"][0].update(bbox=[1, 2, float("nan"), 3])
    ),
    "annotation 1 has no 'bbox'": lambda f: f["annotations"][0].pop("bbox"),
    "image 5: width is 40.5": lambda f: f["images"][0].update(width=40.5),
    "image 5 has no 'file_name'": lambda f: f["images"][0].pop("file_name"),
    "image at place 0 is 3, which is no object": lambda f: f["images"].insert(0, 3),
}


@pytest.mark.parametrize("reason", FAULTS_OF_COCO)
def test_faults_of_a_coco_file_are_named(root, reason):
    write_coco(root / "coco.json", FAULTS_OF_COCO[reason])
    with pytest.raises(InputError, match=reason) as error:
        coco_source(root)
    assert str(error.value).count("\n") == 0


def test_other_faults_of_coco_and_its_photographs(root):
    (root / "coco.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        coco_source(root)
    with pytest.raises(InputError, match=r"'other\.json'; there is no such file in"):
        coco_source(root, annotations="other.json")
    write_coco(root / "coco.json", lambda f: f["images"][0].update(width=41))
    made = coco_source(root)
    (index,) = (i for i in range(3) if made.id(i).endswith("wide.jpg"))
    with pytest.raises(BadRecord, match="is of 41 × 20 pixels, the image of 40 × 20"):
        made[index]
    with pytest.raises(InputError, match="'bird' is unknown"):
        coco_source(root, classes=("bird",))
    write_coco(root / "coco.json")
    write.photograph(root / "photos" / "more.jpg")
    (root / "photos" / "wide.jpg").unlink()
    made = coco_source(root)
    assert made.notes == ("1 photographs of the file do not exist: wide.jpg",)
    assert made.remarks == (
        "1 photographs are not in the file and are omitted: photos/more.jpg",
    )
    assert not check(made).passed


def test_categories_keep_their_numbers_and_may_be_chosen(root):
    made = coco_source(root)
    assert made.info.class_ids == (17, 18)
    assert sorted(made.image_ids) == [5, 6, 7]
    dogs = coco_source(root, classes=("dog",))
    assert dogs.info.class_ids == (18,)
    assert dogs.remarks == ("2 annotations are of other classes and are omitted",)
    labels = [dogs[index]["box_labels"].tolist() for index in range(3)]
    assert sorted(labels) == [[], [], [0]]


def test_a_side_that_is_outside_by_rounding_is_moved_and_no_other(root):
    write_coco(
        root / "coco.json",
        lambda f: f["annotations"][1].update(bbox=[0, -0.01, 40.01, 20]),
    )
    assert check(coco_source(root)).passed
    write_coco(
        root / "coco.json", lambda f: f["annotations"][1].update(bbox=[0, 0, 40.5, 20])
    )
    found = check(coco_source(root))
    assert not found.passed
    assert "reaches beyond the image of 40 × 20" in found.text()


def without_the_first(found):
    found["images"] = found["images"][1:]
    found["annotations"] = found["annotations"][2:]


def test_a_split_may_have_a_file_of_its_own(root):
    write_coco(root / "validation.json", without_the_first)
    given = {"annotations": "coco.json", "validate_annotations": "validation.json"}
    train = CocoSource(root, "train", **given)
    validate = CocoSource(root, "validate", **given)
    assert len(train) == 3
    assert len(validate) == 2
    with pytest.raises(InputError, match="test_fraction is 0"):
        CocoSource(root, "test", **given)


@pytest.mark.parametrize("kind", ["polygon", "list", "text"])
def test_masks_are_of_the_smallest_object_and_crowds_are_ignored(root, kind):
    from pycocotools import mask as masks

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
