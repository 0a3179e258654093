"""The Oxford-IIIT Pet folder as it lies on a user's disk."""

import numpy as np
import pytest

from fpn_jax.data.check import check
from fpn_jax.data.records import IGNORE, AbsentSplit, BadRecord
from fpn_jax.data.sources.pets import PetsSource
from fpn_jax.errors import InputError
from tests.conftest import ROOT
from tests.data.sources import annotated_files as write

HEIGHT, WIDTH = 20, 30
LIST = "#Image CLASS-ID SPECIES BREED ID\n"


def trimap():
    values = np.full((HEIGHT, WIDTH), 2)
    values[5:15, 5:20] = 3
    values[7:13, 7:18] = 1
    return values


@pytest.fixture
def root(tmp_path):
    """A folder with six photographs, the faults of the original among them."""
    annotations = tmp_path / "annotations"
    lines = []
    for number in range(6):
        name = f"{'Abyssinian' if number % 2 else 'beagle'}_{number}"
        write.photograph(tmp_path / "images" / f"{name}.jpg", seed=number)
        write.mask(annotations / "trimaps" / f"{name}.png", trimap())
        if number < 3:
            write.xml(annotations / "xmls" / f"{name}.xml", [("dog", 3, 4, 12, 10)])
        lines.append(f"{name} {number + 1} {1 if number % 2 else 2} {number + 1}")
    (tmp_path / "images" / "beagle_0.mat").write_bytes(b"MATLAB")
    (annotations / "trimaps" / "._beagle_0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "images" / "Not_listed_1.jpg").write_bytes(b"GIF89a")
    (annotations / "list.txt").write_text(LIST + "\n".join(lines))
    (annotations / "trainval.txt").write_text("\n".join(lines[:5]) + "\n")
    (annotations / "test.txt").write_text(lines[5] + "\n")
    return tmp_path


def source(root, split="train", **arguments):
    return PetsSource(root, split, **({"validate_fraction": 0.001} | arguments))


def test_the_lists_decide_which_photographs_are_used(root):
    train = source(root)
    assert [train.id(i).rpartition("/")[2] for i in range(len(train))] == [
        "beagle_0.jpg",
        "Abyssinian_1.jpg",
        "beagle_2.jpg",
        "Abyssinian_3.jpg",
        "beagle_4.jpg",
    ]
    assert [train[i]["label"] for i in range(5)] == [1, 0, 1, 0, 1]
    assert len(source(root, "test")) == 1
    assert check(train).passed


def test_train_and_validate_are_disjoint_parts_of_trainval(root):
    for fraction in (0.3, 0.5, 0.7):
        parts = [
            {s.id(i) for i in range(len(s))}
            for s in (
                source(root, x, validate_fraction=fraction)
                for x in ("train", "validate")
            )
        ]
        assert len(parts[0] | parts[1]) == 5
        assert not parts[0] & parts[1]


def test_lists_of_ones_own_divide_instead(root):
    for split, names in (
        ("train", "beagle_0 1 2 1"),
        ("validate", "Abyssinian_1 2 1 2"),
    ):
        (root / "annotations" / f"{split}.txt").write_text(names)
    assert source(root).id(0).endswith("beagle_0.jpg")
    assert source(root, "validate").id(0).endswith("Abyssinian_1.jpg")
    assert len(source(root)) == 1


@pytest.mark.parametrize(
    ("meanings", "expected"),
    [
        (("pet", "background", "pet"), {1: 1, 2: 0, 3: 1}),
        (("pet", "background", "ignore"), {1: 1, 2: 0, 3: IGNORE}),
        (("pet", "background", "background"), {1: 1, 2: 0, 3: 0}),
    ],
)
def test_the_values_of_a_trimap_mean_what_the_config_says(root, meanings, expected):
    made = source(root, trimap=meanings)[0]["mask"]
    values = trimap()
    for value, label in expected.items():
        assert (made[values == value] == label).all()


def test_boxes_exist_for_a_part_of_the_photographs_only(root):
    made = source(root, fields=("boxes",))
    assert len(made) == 3
    assert made.remarks == ("2 photographs have no boxes and are omitted",)
    # VOC counts pixels from 1 and includes the last one.
    assert made[0]["boxes"].tolist() == [[2, 3, 12, 10]]
    assert made[0]["box_labels"].tolist() == [1]
    assert "mask" not in made[0]
    assert made.info.fields == ("boxes", "box_labels", "box_crowd")


def fault_of_mask(root, values):
    write.mask(root / "annotations" / "trimaps" / "beagle_0.png", values)
    with pytest.raises(BadRecord) as error:
        source(root)[0]
    return str(error.value)


def test_a_wrong_trimap_is_named(root):
    assert "has the value 7, which has no class; a trimap has" in fault_of_mask(
        root, np.full((HEIGHT, WIDTH), 7)
    )
    assert "mask beagle_0.png is of 20 × 30 pixels, the image of 30 × 20" in (
        fault_of_mask(root, np.ones((WIDTH, HEIGHT)))
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: (r / "annotations" / "trainval.txt").unlink(), "is missing; "),
        (
            lambda r: (r / "annotations" / "trainval.txt").write_text("beagle_0 1\n"),
            "line 1: 'beagle_0 1' is not NAME CLASS SPECIES BREED",
        ),
        (
            lambda r: (r / "annotations" / "trainval.txt").write_text(
                "beagle_0 1 2 1\n" * 2
            ),
            "line 2: beagle_0 is listed twice",
        ),
    ],
)
def test_a_wrong_list_is_named(root, change, text):
    change(root)
    with pytest.raises(InputError, match=text):
        source(root)


def test_arguments_and_folders_that_do_not_fit_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="one of the fields 'masks' is unknown"):
        source(root, fields=("masks",))
    with pytest.raises(
        InputError, match="one of the values of trimap 'cat' is unknown"
    ):
        source(root, trimap=("cat", "pet", "pet"))
    with pytest.raises(
        InputError, match="give the folder with images/ and annotations/"
    ):
        source(root / "images")
    (root / "annotations" / "test.txt").unlink()
    with pytest.raises(AbsentSplit):
        source(root, "test")


def test_the_real_folder_is_read_as_it_is():
    folder = ROOT.parent / "shared" / "data" / "pets"
    if not folder.is_dir():
        pytest.skip("the photographs are not there")
    train, validate = (PetsSource(folder, split) for split in ("train", "validate"))
    assert (len(train), len(validate)) == (359, 120)
    record = train[0]
    assert record["mask"].shape == record["image"].shape[:2]
    heads = PetsSource(folder, "train", fields=("boxes",))
    assert len(heads) == 176
