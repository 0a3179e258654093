"""Augmentations move masks, boxes and landmarks as they move the image."""

import numpy as np
import pytest

from fpn_jax.data import augmentation, colours
from fpn_jax.data.records import IGNORE
from fpn_jax.data.sources.drawn import DrawnSource
from tests.data.test_augmentation import STACK

ANIMALS = DrawnSource("train", 64)
GEOMETRY = {
    "nothing": {},
    "crop": {"crop_scale": (0.25, 1.0)},
    "flip": {"flip": 0.5},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "randaugment": {"randaugment_layers": 3},
    "erasing": {"erasing": 1.0},
    "rotation": {"rotation": 40.0},
    "all": STACK | {"randaugment_layers": 3},
}
NOTHING = {
    **dict.fromkeys(STACK, 0),
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
}


def annotated(index, size=(64, 64)):
    """Returns a drawn record, cut to a size."""
    height, width = size
    record = ANIMALS[index] | {"mirrored": ANIMALS.info.mirrored}
    record["image"] = np.ascontiguousarray(record["image"][:height, :width])
    record["mask"] = record["mask"][:height, :width]
    return record


@pytest.fixture
def colourless(monkeypatch):
    """Leaves the pixels as they are, wherever a transform would recolour them."""
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(colours, f"adjust_{name}", lambda image, _: image)
    drawn = [
        operation._replace(recolour=lambda image, _: image)
        for operation in augmentation.OPERATIONS.values()
    ]
    monkeypatch.setattr(augmentation, "_DRAWN", tuple(drawn))
    monkeypatch.setattr(augmentation.RandomErasing, "__call__", lambda self, x, _: x)


def centre_of(weight):
    """Returns `(x, y)`, the centre of what is bright in `[H, W]`."""
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def picture_is_mirrored(augment, size):
    """Returns whether a picture that is brighter to the right comes out mirrored."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = np.linspace(50, 250, size[1])
    moved = augment({"image": image})["image"].astype(float)
    # What enters from outside is grey, not red.
    rows, columns = np.nonzero(moved[..., 1] == 0)
    return np.polyfit(columns, moved[rows, columns, 0], 1)[0] < 0


def found_landmark(augment, size, point):
    """Returns where a dot at a point comes to be, and None if it is not to be seen."""
    plain = np.zeros((*size, 3), np.uint8)
    marked = plain.copy()
    marked[int(point[1]), int(point[0])] = 255
    with_dot, without = (
        augment({"image": image})["image"] for image in (marked, plain)
    )
    change = np.abs(with_dot.astype(int) - without).sum(axis=-1)
    return centre_of(change) if change.sum() > 20 else None


@pytest.mark.parametrize("size", [(64, 64), (61, 43), (40, 63)])
@pytest.mark.parametrize("name", GEOMETRY)
def test_landmarks_are_where_the_moved_picture_has_them(name, size, colourless):
    stack = augmentation.build_train(48, **NOTHING | GEOMETRY[name])
    seen = missing = mirrored = 0
    for seed in range(40):

        def augment(record, seed=seed):
            return stack(record, np.random.default_rng(seed))

        record = annotated(seed % 8, size)
        limits = np.array([size[1], size[0]]) - 2
        points = record["landmarks"]
        inside = ((points[:, :2] > 2) & (points[:, :2] < limits)).all(axis=1)
        points[:, :2], points[:, 2] = np.floor(points[:, :2]) + 0.5, inside
        moved = augment(record)
        assert set(np.unique(moved["mask"])) <= {*np.unique(record["mask"]), IGNORE}
        flipped = picture_is_mirrored(augment, size)
        mirrored += flipped
        for k, (x, y, visible) in enumerate(moved["landmarks"]):
            if not visible or min(x, y, 48 - x, 48 - y) < 2:
                continue
            # The left eye of a mirrored picture was the right one.
            before = ANIMALS.info.mirrored[k] if flipped else k
            found = found_landmark(augment, size, points[before])
            if found is None:
                missing += 1
                continue
            np.testing.assert_allclose(found, (x, y), atol=1)
            seen += 1
    assert seen > 50
    # A movement in between may have cut a dot off at its border.
    assert missing <= 0.03 * seen
    assert (mirrored > 0) == (name in ("flip", "all"))


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_box_of_a_filled_mask_follows_its_box(name):
    stack = augmentation.build_train(48, **NOTHING | GEOMETRY[name])
    # A border cuts a turned box to a wedge, whose tip is thinner than a pixel: eight
    # times as many pixels see more of it, and everything is drawn alike.
    finer = augmentation.build_train(8 * 48, **NOTHING | GEOMETRY[name])
    seen = 0
    for seed in range(60):
        record = annotated(seed % 8)
        x0, y0, x1, y1 = np.rint(record["boxes"][0]).astype(int)
        mask = np.zeros((64, 64), np.uint8)
        mask[y0:y1, x0:x1] = 1
        record |= {"boxes": np.array([[x0, y0, x1, y1]], np.float32), "mask": mask}
        moved = stack(record, np.random.default_rng(seed))
        if not len(moved["boxes"]):
            assert moved["dropped_boxes"] == 1
            assert moved["box_labels"].shape == (0,)
            continue
        seen += 1
        fine = finer(record, np.random.default_rng(seed))["mask"]
        rows, columns = np.nonzero(fine == 1)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(np.array(found) / 8, moved["boxes"][0], atol=1)
        # Where nothing turns, the mask of the same size shows it as well.
        if name not in ("randaugment", "rotation", "all"):
            rows, columns = np.nonzero(moved["mask"] == 1)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found, moved["boxes"][0], atol=1)
    assert seen > 45


@pytest.mark.parametrize("name", GEOMETRY)
def test_colours_and_erasing_draw_as_always_and_move_nothing(name, request):
    stack = augmentation.build_train(48, **NOTHING | GEOMETRY[name])
    fields = ("mask", "boxes", "box_labels", "landmarks", "dropped_boxes")
    real = [stack(annotated(s % 8), np.random.default_rng(s)) for s in range(20)]
    request.getfixturevalue("colourless")
    for seed, expected in enumerate(real):
        moved = stack(annotated(seed % 8), np.random.default_rng(seed))
        for field in fields:
            np.testing.assert_array_equal(moved[field], expected[field])


@pytest.mark.parametrize("name", GEOMETRY)
def test_fields_do_not_change_the_image(name):
    stack = augmentation.build_train(48, **NOTHING | GEOMETRY[name])
    for seed in range(10):
        record = annotated(seed)
        alone = stack({"image": record["image"]}, np.random.default_rng(seed))
        assert alone.keys() == {"image"}
        moved = stack(record, np.random.default_rng(seed))
        np.testing.assert_array_equal(moved["image"], alone["image"])


def test_erasing_changes_only_the_image():
    record = annotated(0)
    stack = augmentation.build_train(64, **NOTHING | {"erasing": 1.0})
    moved = stack(record, np.random.default_rng(0))
    assert (moved["image"] != record["image"]).any()
    for field in ("mask", "boxes", "box_labels", "landmarks"):
        np.testing.assert_array_equal(moved[field], record[field])
