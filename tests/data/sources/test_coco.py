"""Sets of COCO: faults of the file, its photographs, and splits."""

import pytest

from fpn_jax.data.check import check
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.coco import CocoSource
from fpn_jax.errors import InputError
from tests.data.sources import annotated_files as write
from tests.data.sources.box_files import coco_source, named, write_all, write_coco


@pytest.fixture
def root(tmp_path):
    write_all(tmp_path)
    return tmp_path


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
    "annotation 1: iscrowd is 'no'": lambda f: f["annotations"][0].update(iscrowd="no"),
    "annotation 1: bbox is .*; it must be four": (
        lambda f: f["annotations"][0].update(bbox=[1, 2, 10**400, 3])
    ),
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
    index = named(made, "wide.jpg")
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


def test_a_photograph_belongs_to_one_image(root):
    def same(found):
        # Two images have the name of the one photograph in a folder.
        found["images"][0]["file_name"] = "a/wide.jpg"
        found["images"][1]["file_name"] = "b/wide.jpg"

    write_coco(root / "coco.json", same)
    (note,) = coco_source(root).notes
    assert note.startswith("2 photographs of the file do not exist: a/wide.jpg")

    def twice(found):
        found["images"][0]["file_name"] = "photos/wide.jpg"
        found["images"][1]["file_name"] = "photos\\wide.jpg"

    write_coco(root / "coco.json", twice)
    with pytest.raises(InputError, match=r"are both photos/wide\.jpg; keep one"):
        coco_source(root)


def test_names_with_the_slash_of_windows_are_found(root):
    write_coco(
        root / "coco.json",
        lambda f: f["images"][0].update(file_name="photos\\wide.jpg"),
    )
    made = coco_source(root)
    assert len(made) == 3
    assert not made.notes


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
