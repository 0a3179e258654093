import pickle

import numpy as np
import pytest

from fpn_jax.data import records
from fpn_jax.data.records import FIELDS, BadRecord, SourceInfo
from fpn_jax.data.sources import SOURCES
from fpn_jax.errors import InputError

LANDMARKS = {"classes": ("cat",), "fields": ("landmarks",)}


def test_the_table_has_one_line_for_each_field():
    lines = records.describe().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(FIELDS)
    assert len({line.count("|") for line in lines}) == 1


def test_paddings_can_be_told_from_values():
    assert FIELDS["mask"].padding == records.IGNORE == 255
    assert FIELDS["box_labels"].padding == FIELDS["identity"].padding == -1
    for field in FIELDS.values():
        assert np.full((), field.padding, field.dtype) == field.padding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": ("lable",)}, "field 'lable' is unknown; did you mean 'label'"),
        ({}, "names of 'landmarks' are"),
        ({"fields": ("label",), "landmark_names": ("nose",)}, "names of 'landmarks'"),
        ({"fields": ("mask",)}, "names of 'mask' are"),
        ({"landmark_names": ("a", "b"), "mirrored": (1,)}, r"mirrored is \(1,\)"),
        ({"landmark_names": ("a", "b"), "mirrored": (1, 1)}, "swap pairs of the 2"),
        ({"landmark_names": ("a", "b", "c"), "mirrored": (1, 2, 0)}, "swap pairs"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        SourceInfo(**(LANDMARKS | changes))


def test_landmarks_may_swap_or_stay():
    names = ("left eye", "right eye", "nose")
    SourceInfo(**LANDMARKS, landmark_names=names, mirrored=(1, 0, 2))
    SourceInfo(**LANDMARKS, landmark_names=names)


def test_a_bad_record_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(BadRecord("cat/1.jpg", "it is empty")))
    assert (error.id, error.reason) == ("cat/1.jpg", "it is empty")
    assert str(error) == "cat/1.jpg: it is empty"


def test_every_source_takes_what_the_code_gives():
    assert {"drawn", "folder", "tfds"} <= SOURCES.keys()
    source = SOURCES["drawn"](split="test", image_size=8)
    assert source.info.classes == ("cat", "dog")
    assert source.info.fields == tuple(FIELDS)
    assert len(source) == 1000
    with pytest.raises(InputError, match=r"data\.root is empty; give the folder of"):
        SOURCES["folder"](root="", split="train", background=(1, 2, 3), encoded=True)
