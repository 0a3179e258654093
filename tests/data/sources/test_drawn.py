import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fpn_jax.data.check import check
from fpn_jax.data.drawing import animals, scenery, strokes
from fpn_jax.data.records import SPLITS
from fpn_jax.data.sources import drawn
from fpn_jax.data.sources.drawn import CLASSES, DrawnSource, draw
from fpn_jax.errors import InputError

# Of the first 64 records of the train split, at 64 pixels.
GOLDEN_MEAN, GOLDEN_STD = (147.4, 137.1, 126.3), (57.3, 53.9, 58.4)
GOLDEN_COVERED = 0.4247


@pytest.fixture(scope="module")
def records():
    return [draw(0, "train", index, 64) for index in range(256)]


def digest(record):
    parts = [np.asarray(record[key]).tobytes() for key in sorted(record)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_schema(records):
    for record in records[:16]:
        assert record["image"].dtype == record["mask"].dtype == np.uint8
        assert record["image"].shape == (64, 64, 3)
        assert record["mask"].shape == (64, 64)
        assert set(np.unique(record["mask"])) <= {0, 1}
        assert record["boxes"].shape == (1, 4)
        assert record["landmarks"].shape == (5, 3)
        assert record["boxes"].dtype == record["landmarks"].dtype == np.float32
        assert record["box_labels"].dtype == record["identity"].dtype == np.int32
        assert record["box_labels"].tolist() == [record["label"]]
        assert record["image"].flags.c_contiguous
        assert record["image"].flags.writeable


def test_a_record_is_a_pure_function(records):
    expected = [digest(record) for record in records[:32]]
    assert [digest(draw(0, "train", index, 64)) for index in range(32)] == expected
    with ThreadPoolExecutor(4) as pool:
        backwards = pool.map(
            lambda k: digest(draw(0, "train", k, 64)), range(31, -1, -1)
        )
    assert list(backwards)[::-1] == expected
    assert len(set(expected)) == 32


def test_another_process_draws_the_same(records):
    code = (
        "from fpn_jax.data.sources.drawn import draw; import sys;"
        "sys.stdout.buffer.write(draw(0, 'train', 5, 64)['image'].tobytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout == records[5]["image"].tobytes()


def test_seed_and_split_change_the_picture(records):
    others = [
        draw(1, "train", 0, 64),
        draw(0, "validate", 0, 64),
        draw(0, "test", 0, 64),
    ]
    assert len({digest(record) for record in [*others, records[0]]}) == 4


def test_golden_statistics(records):
    images = np.stack([record["image"] for record in records[:64]]).astype(np.float64)
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), GOLDEN_MEAN, atol=1.0)
    np.testing.assert_allclose(images.std(axis=(0, 1, 2)), GOLDEN_STD, atol=1.0)
    covered = np.mean([record["mask"].mean() for record in records[:64]])
    assert covered == pytest.approx(GOLDEN_COVERED, abs=0.01)


def test_any_prefix_and_any_stride_is_balanced():
    source = DrawnSource("validate", 8, validate_records=128)
    labels = np.array([source[index]["label"] for index in range(len(source))])
    balance = np.cumsum(2 * labels - 1)
    assert np.abs(balance).max() == 1
    assert balance[-1] == 0
    for stride in (2, 4, 8):
        assert abs(labels[::stride].mean() - 0.5) <= 1 / 8


def test_heads_of_every_size_are_drawn(records):
    boxes = np.concatenate([record["boxes"] for record in records]) / 64
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert 0.25 < sides.min() < 0.42
    assert 0.85 < sides.max() <= 1
    assert np.histogram(sides, bins=3, range=(0.35, 0.95))[0].min() > 40


def test_annotations_lie_where_they_should(records):
    on_animal = []
    for record in records:
        x0, y0, x1, y1 = record["boxes"][0]
        assert 0 <= x0 < x1 <= 64
        assert 0 <= y0 < y1 <= 64
        left_eye, right_eye, nose, left_ear, right_ear = record["landmarks"]
        assert np.linalg.norm(right_eye[:2] - left_eye[:2]) > 3
        for x, y, visible in record["landmarks"]:
            if visible:
                assert x0 <= x <= x1
                assert y0 <= y <= y1
                on_animal.append(record["mask"][int(y), int(x)])
        # Left stays left of right along the line of the eyes, at any roll.
        along = right_eye[:2] - left_eye[:2]
        assert (right_ear[:2] - left_ear[:2]) @ along > 0
        assert left_eye[:2] @ along < nose[:2] @ along < right_eye[:2] @ along
    assert np.mean(on_animal) > 0.99


def test_occluders_hide_landmarks_and_mask(monkeypatch):
    everything = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    monkeypatch.setattr(scenery, "occluders", lambda rng: [everything])
    record = draw(0, "train", 0, 64)
    assert record["mask"].sum() == 0
    assert record["landmarks"][:, 2].sum() == 0


@pytest.mark.parametrize("label", [animals.CAT, animals.DOG])
def test_silhouette_is_what_is_painted(label):
    for index in range(12):
        rng = np.random.default_rng([label, index])
        pose, does = drawn._pose(rng)
        layers = animals.figure(animals.individual(rng, label), does).layers
        placed = strokes.place([layer for layer in layers if layer.part], pose, 256)
        black = np.zeros((256, 256, 3), np.uint8)
        white = np.full_like(black, 255)
        strokes.paint(black, placed)
        strokes.paint(white, placed)
        # What is opaque looks the same on black and on white.
        opaque = (black == white).all(axis=-1)
        silhouette = strokes.silhouette(placed, 256) > 0
        union = (opaque | silhouette).sum()
        assert (opaque & silhouette).sum() / union > 0.98


@pytest.mark.parametrize("index", [0, 1, 6, 13])
def test_the_picture_does_not_depend_on_its_size(index):
    small, large = draw(0, "train", index, 64), draw(0, "train", index, 128)
    places = small["landmarks"][:, :2], large["landmarks"][:, :2]
    np.testing.assert_allclose(2 * places[0], places[1], rtol=1e-6)
    np.testing.assert_allclose(2 * small["boxes"], large["boxes"], rtol=1e-6)
    assert (small["landmarks"][:, 2] == large["landmarks"][:, 2]).all()
    shrunk = cv2.resize(large["image"], (64, 64), interpolation=cv2.INTER_AREA)
    difference = shrunk.astype(float) - small["image"]
    assert np.sqrt(np.mean(difference**2)) < 16
    shrunk = cv2.resize(large["mask"], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.mean((shrunk > 0) != small["mask"]) < 0.04


def test_identity_decides_class_and_fur(records):
    groups = {}
    for record in records:
        groups.setdefault(int(record["identity"]), []).append(record)
    assert len(groups) == 64
    within, means = [], []
    for group in groups.values():
        assert len(group) == drawn.RECORDS_PER_INDIVIDUAL
        assert len({record["label"] for record in group}) == 1
        fur = [np.median(r["image"][r["mask"] > 0], axis=0) for r in group]
        within.append(np.std(fur, axis=0))
        means.append(np.mean(fur, axis=0))
    assert np.mean(within) < 0.6 * np.mean(np.std(means, axis=0))


def test_no_individual_is_in_two_splits():
    seen = [
        {int(draw(0, split, index, 8)["identity"]) for index in range(64)}
        for split in SPLITS
    ]
    assert [len(identities) for identities in seen] == [16, 16, 16]
    assert len(set.union(*seen)) == 48


@pytest.fixture(scope="module")
def small():
    """Pictures of 32 pixels, labels, and shares of the picture that the animal has."""

    def load(split, count):
        source = DrawnSource(split, 32, **{f"{split}_records": count})
        records = [source[index] for index in range(count)]
        return (
            np.stack([record["image"] for record in records]),
            np.array([record["label"] for record in records]),
            np.array([record["mask"].mean() for record in records]),
        )

    return load("train", 2000), load("validate", 1000)


def test_classes_do_not_differ_in_brightness_or_area(small):
    images, labels, areas = small[0]
    for values in (images.mean(axis=(1, 2, 3)), areas):
        difference = values[labels == 1].mean() - values[labels == 0].mean()
        assert abs(difference) < 0.25 * values.std()


def pixels(images):
    return images.reshape(len(images), -1).astype(np.float32)


def histograms(images):
    bins, limits = [8, 8, 8], [0, 256] * 3
    return np.stack(
        [cv2.calcHist([x], [0, 1, 2], None, bins, limits).ravel() for x in images]
    )


@pytest.mark.parametrize("features", [pixels, histograms])
def test_a_linear_model_cannot_tell_them_apart(small, features):
    (images, labels, _), (new_images, new_labels, _) = small
    seen, new = features(images), features(new_images)
    for inverse_regularization in (1e-4, 1e-2):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=inverse_regularization, max_iter=1000, tol=1e-2),
        ).fit(seen, labels)
        assert model.score(new, new_labels) < 0.65


def test_source():
    source = DrawnSource("train", 32, train_records=20, seed=3)
    assert source.info.classes == CLASSES == ("cat", "dog")
    assert len(source) == 20
    assert source.id(17) == "drawn/train/17"
    assert digest(source[17]) == digest(draw(3, "train", 17, 32))
    assert digest(pickle.loads(pickle.dumps(source))[17]) == digest(source[17])
    for index in (-1, 20):
        with pytest.raises(IndexError, match="out of range"):
            source[index]
        with pytest.raises(IndexError, match="out of range"):
            source.id(index)
    with pytest.raises(IndexError, match="out of range"):
        draw(0, "train", -1, 32)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"split": "trian"}, "did you mean 'train'"),
        ({"train_records": 0}, "train_records is 0; it must be at least 1"),
        ({"image_size": 0}, "image_size is 0; it must be at least 8"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_refused_inputs(changes, text):
    given = {"split": "train", "train_records": 8, "image_size": 32, "seed": 0}
    with pytest.raises(InputError, match=text):
        DrawnSource(**(given | changes))


def test_a_share_of_the_drawings_shows_no_animal():
    full = DrawnSource("train", 32, train_records=64)
    made = DrawnSource("train", 32, train_records=64, empty_fraction=0.4)
    assert set(made.info.fields) == set(full.info.fields) - {"label", "identity"}
    empty = [index for index in range(64) if not len(made[index]["boxes"])]
    assert 0.2 < len(empty) / 64 < 0.6
    for index in range(64):
        record = made[index]
        if index in empty:
            assert not record["mask"].any()
            assert not record["landmarks"][:, 2].any()
            assert record["boxes"].shape == (0, 4)
            assert record["box_labels"].shape == (0,)
        else:
            np.testing.assert_array_equal(record["image"], full[index]["image"])
    assert check(made).passed
    with pytest.raises(InputError, match="empty_fraction is 1"):
        DrawnSource("train", 32, empty_fraction=1.0)
