"""Photographs of cats with `.cat` files."""

import numpy as np
import pytest

from fpn_jax.data.check import check
from fpn_jax.data.geometry import Placement
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.cat_points import FIVE, POINTS, CatPointsSource
from fpn_jax.data.sources.drawn import INFO
from fpn_jax.errors import InputError
from tests.conftest import ROOT
from tests.data.sources import annotated_files as write

PLACES = [(5, 8), (15, 8), (10, 14), (2, 5), (3, 1), (7, 4), (13, 4), (17, -2), (18, 5)]


def points(path, places=PLACES, count=9):
    numbers = " ".join(str(n) for place in places for n in place)
    path.write_text(f"{count} {numbers} ")


@pytest.fixture
def root(tmp_path):
    for name in "abc":
        write.photograph(tmp_path / f"{name}.jpg")
    points(tmp_path / "a.jpg.cat")
    points(tmp_path / "b.jpg.cat")
    return tmp_path


def source(root, split="train", **arguments):
    return CatPointsSource(root, split, **({"validate_fraction": 0.0} | arguments))


def test_five_points_correspond_to_those_of_drawn_animals(root):
    made = source(root)
    found = made[0]["landmarks"]
    # Pixel 0 is centred at 0.5.
    expected = [(5.5, 8.5), (15.5, 8.5), (10.5, 14.5), (3.5, 1.5), (17.5, -1.5)]
    np.testing.assert_array_equal(found[:, :2], np.array(expected, np.float32))
    assert found[:, 2].tolist() == [1, 1, 1, 1, 0]
    names = [name.replace("mouth", "nose") for name in made.info.landmark_names]
    assert tuple(names) == INFO.landmark_names
    assert made.info.mirrored == INFO.mirrored
    assert made.remarks == ("1 images have no .cat file and are omitted",)
    assert check(made).passed


def test_a_flip_swaps_left_and_right_and_undoes_itself(root):
    made = source(root, points=POINTS)
    record, mirrored = made[0], made.info.mirrored
    flip = Placement.flip(record["image"].shape[:2])
    once = flip.points(record["landmarks"], mirrored)
    names = list(POINTS)
    left, right = names.index("left ear tip"), names.index("right ear tip")
    assert once[left, 0] == 30 - record["landmarks"][right, 0]
    # A point outside of the image stays invisible.
    np.testing.assert_array_equal(flip.points(once, mirrored), record["landmarks"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: points(p, PLACES[:8]), "has 17 numbers; a 9 and nine pairs"),
        (lambda p: points(p, count=8), "has 19 numbers; a 9 and nine pairs"),
        (lambda p: p.write_text("9 1 2 x"), "has a word that is no number"),
    ],
)
def test_a_wrong_file_is_named(root, change, text):
    change(root / "a.jpg.cat")
    with pytest.raises(BadRecord, match=text):
        source(root)[0]


def test_a_photograph_that_exif_turns_is_refused(root):
    write.photograph(root / "a.jpg", orientation=6)
    with pytest.raises(BadRecord, match="turned by Exif orientation 6"):
        source(root)[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"points": ("left ear",)}, "'left ear' is unknown; did you mean"),
        ({"points": ("left eye",)}, "'left eye' without 'right eye'"),
        ({"points": ()}, "give one or more, each once"),
    ],
)
def test_points_that_do_not_fit_are_refused(root, arguments, text):
    with pytest.raises(InputError, match=text):
        source(root, **arguments)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"0 images are there, 0 with a \.cat file"):
        source(tmp_path)
    with pytest.raises(InputError, match=r"give the folder with NAME\.jpg"):
        source(tmp_path / "nowhere")


def test_the_real_photographs_are_read():
    folder = ROOT.parent / "shared" / "data" / "cat_landmarks"
    if not folder.is_dir():
        pytest.skip("the photographs are not there")
    made = CatPointsSource(folder, "train", points=FIVE)
    assert 50 < len(made) < 70
    assert check(made).passed
