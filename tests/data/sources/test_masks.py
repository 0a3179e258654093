"""Images and masks of the same names in two folders."""

import numpy as np
import pytest

from fpn_jax.data.check import check
from fpn_jax.data.records import IGNORE, AbsentSplit, BadRecord
from fpn_jax.data.sources.masks import MasksSource
from fpn_jax.errors import InputError
from tests.data.sources import annotated_files as write

HEIGHT, WIDTH = 20, 30
CLASSES = {"background": 0, "cat": 1, "dog": (2, 200)}


def values(seed=0):
    return np.random.default_rng(seed).choice([0, 1, 2, 200, 255], size=(HEIGHT, WIDTH))


@pytest.fixture
def root(tmp_path):
    for number in range(12):
        write.photograph(tmp_path / "images" / f"{number}.jpg", seed=number)
        write.mask(tmp_path / "masks" / f"{number}.png", values(number), number % 2)
    return tmp_path


def source(root, split="train", **arguments):
    return MasksSource(root, split, **({"mask_classes": CLASSES} | arguments))


def test_values_become_classes_in_grey_and_in_palette_files(root):
    made = source(root, validate_fraction=0.0)
    assert made.info.mask_classes == ("background", "cat", "dog")
    for index in range(12):
        number = int(made.id(index).rpartition("/")[2].removesuffix(".jpg"))
        table = {0: 0, 1: 1, 2: 2, 200: 2, 255: IGNORE}
        expected = np.vectorize(table.get)(values(number))
        np.testing.assert_array_equal(made[index]["mask"], expected)
    assert check(made).passed


def test_the_splits_are_disjoint_and_complete(root):
    arguments = {"validate_fraction": 0.3, "test_fraction": 0.3}
    parts = [
        {s.id(i) for i in range(len(s))}
        for s in (source(root, x, **arguments) for x in ("train", "validate", "test"))
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 12
    with pytest.raises(AbsentSplit):
        source(root, "test")


def test_folders_of_splits_are_understood(tmp_path):
    for split in ("Train", "val"):
        write.photograph(tmp_path / split / "images" / "a.jpg")
        write.mask(tmp_path / split / "masks" / "a.png", values())
    assert source(tmp_path).id(0).endswith("Train/images/a.jpg")
    assert source(tmp_path, "validate").id(0).endswith("val/images/a.jpg")
    with pytest.raises(AbsentSplit, match="no images/ and masks/ for the split 'test'"):
        source(tmp_path, "test")


def test_files_without_a_partner_are_named(root):
    write.photograph(root / "images" / "alone.jpg")
    write.mask(root / "masks" / "lonely.png", values())
    made = source(root, validate_fraction=0.0)
    assert len(made) == 12
    assert made.notes == (
        "1 images without mask are not used: alone",
        "1 masks without image are not used: lonely",
    )
    assert not check(made).passed


def fault(root):
    with pytest.raises(BadRecord) as error:
        source(root, validate_fraction=0.0)[0]
    return str(error.value)


def test_a_wrong_mask_is_named_with_its_value(root):
    wrong = values()
    wrong[3, 4] = 77
    write.mask(root / "masks" / "0.png", wrong)
    assert "mask 0.png has the value 77, which has no class; the values of" in fault(
        root
    )
    write.mask(root / "masks" / "0.png", np.zeros((5, 6)))
    assert "mask 0.png is of 6 × 5 pixels, the image of 30 × 20" in fault(root)
    write.mask(root / "masks" / "0.png", np.zeros((HEIGHT, WIDTH, 3)))
    assert "has colours (mode RGB); a mask is grey" in fault(root)
    (root / "masks" / "0.png").write_bytes(b"no image")
    assert "mask 0.png cannot be read: cannot identify image" in fault(root)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_turns_with_a_photograph_that_exif_turns(tmp_path, orientation):
    upright = values()
    sideways = orientation > 4
    stored = (HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT)
    write.photograph(tmp_path / "images" / "a.jpg", stored, orientation)
    write.mask(tmp_path / "masks" / "a.png", upright)
    made = source(tmp_path, validate_fraction=0.0)
    if orientation in (2, 3, 4):
        with pytest.raises(BadRecord, match="does not tell whether it is turned too"):
            made[0]
        return
    before = made[0]["mask"]
    assert made[0]["image"].shape[:2] == before.shape == (HEIGHT, WIDTH)
    if not sideways:
        return
    # The same mask as stored, which has the size of the stored photograph.
    undo = {5: lambda m: m.T, 6: np.rot90, 7: lambda m: m[::-1, ::-1].T}
    undo[8] = lambda m: np.rot90(m, -1)
    write.mask(tmp_path / "masks" / "a.png", undo[orientation](upright))
    np.testing.assert_array_equal(made[0]["mask"], before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mask_classes": {"background": 0}}, "name two classes or more"),
        (
            {"mask_classes": {"a": 0, "b": 0}},
            "value 0 of a mask belongs to 'a' and to 'b'",
        ),
        ({"mask_classes": {"a": 0, "b": 255}}, "belongs to 'b' and to 'ignore'"),
        ({"mask_classes": {"a": 0, "b": 300}}, "is 300; it must be in"),
        ({"masks": "labels"}, "has no images/ and labels/ for the split 'train'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(root, arguments, text):
    with pytest.raises(InputError, match=text):
        source(root, **arguments)


def test_two_photographs_of_one_name_are_refused(root):
    write.mask(root / "images" / "0.png", values())
    with pytest.raises(InputError, match="have the same name; keep one"):
        source(root)
