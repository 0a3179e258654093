"""One placement moves image, mask, boxes and points to the same places."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpn_jax.data.geometry import MIN_VISIBLE, Placement
from fpn_jax.data.pictures import Picture, moved_record
from fpn_jax.data.records import DROPPED, IGNORE
from fpn_jax.data.sources.drawn import DrawnSource

SIZES = [(64, 64), (41, 60), (60, 41), (37, 91), (7, 9)]
UPRIGHT = {
    "crop": lambda size, rng: Placement.crop(
        size,
        (size[0] // 5, size[1] // 4, size[0] - size[0] // 3, size[1] // 2),
        (int(rng.integers(20, 70)), int(rng.integers(20, 70))),
    ),
    "flip": lambda size, rng: Placement.flip(size),
    "letterbox": lambda size, rng: Placement.letterbox(size, (48, 64)),
    "translate": lambda size, rng: Placement.translate(
        size, *rng.uniform(-0.4, 0.4, 2)
    ),
}
WARPS = {
    "rotate": lambda size, rng: Placement.rotate(size, rng.uniform(-40, 40)),
    "shear_x": lambda size, rng: Placement.shear(size, x=rng.uniform(-0.4, 0.4)),
    "shear_y": lambda size, rng: Placement.shear(size, y=rng.uniform(-0.4, 0.4)),
}
KINDS = UPRIGHT | WARPS
QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def chain(size, rng, kinds=KINDS, most=4):
    """Returns a placement of one to `most` movements, drawn from kinds."""
    placement = Placement(size)
    for name in rng.choice(list(kinds), size=rng.integers(1, most + 1)):
        placement = placement.then(kinds[name](placement.size, rng))
    return placement


def box_of(mask):
    """Returns the bounding box of the ones of a mask, or None."""
    rows, columns = np.nonzero(mask == 1)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def filled(size, box):
    mask = np.zeros(size, np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    return mask


def finer(placement, factor):
    """Returns a placement whose result has more pixels."""
    rows, columns = placement.size
    crop = Placement.crop(
        (rows, columns), (0, 0, rows, columns), (factor * rows, factor * columns)
    )
    return placement.then(crop)


def drawn_box(size, rng):
    (y0, x0), (h, w) = (rng.integers(0, size), rng.integers(1, size))
    return np.array([x0, y0, min(x0 + w, size[1]), min(y0 + h, size[0])])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kinds", [UPRIGHT, KINDS], ids=["upright", "all"])
def test_the_box_of_a_moved_mask_is_the_moved_box(size, kinds):
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        placement = chain(size, rng, kinds)
        box = drawn_box(size, rng)
        # A border cuts a turned box to a wedge, whose tip is thinner than a pixel;
        # eight times as many pixels see more of it.
        factor = 1 if kinds is UPRIGHT else 8
        mask = finer(placement, factor).mask(filled(size, box))
        moved, _, dropped = placement.boxes(box[None], min_visible=1e-6)
        found = box_of(mask)
        if dropped:
            assert found is None
            continue
        assert moved.dtype == np.float32
        if found is None:
            assert min(moved[0, 2:] - moved[0, :2]) < 1
            continue
        seen += 1
        np.testing.assert_allclose(found / factor, moved[0], atol=1 + 1e-3)
        assert (moved >= 0).all()
        assert (moved[0] <= [*placement.size[::-1]] * 2).all()
    assert seen > 25


ANIMALS = DrawnSource("train", 64)


def rows_of(mask):
    """Returns a box for every row of a mask: together they cover what it covers."""
    boxes = []
    for y in np.flatnonzero((mask == 1).any(axis=1)):
        edges = np.flatnonzero(np.diff(np.pad(mask[y] == 1, 1).astype(int)))
        boxes += [(x0, y, x1, y + 1) for x0, x1 in edges.reshape(-1, 2)]
    return np.array(boxes, np.float32)


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_the_mask_of_an_animal_and_its_box_stay_together(kind):
    for index in range(25):
        record, rng = ANIMALS[index], np.random.default_rng(index)
        kinds = KINDS if kind == "all" else {kind: KINDS[kind]}
        placement = chain((64, 64), rng, kinds)
        before, mask = box_of(record["mask"]), placement.mask(record["mask"])
        assert set(np.unique(mask)) <= {*np.unique(record["mask"]), IGNORE}
        fine = box_of(finer(placement, 8).mask(record["mask"]))
        moved, _, dropped = placement.boxes(before[None], min_visible=0)
        assert dropped == 0
        if fine is None:
            continue
        # The visible part of the animal is inside of the visible part of its box.
        assert (fine[:2] / 8 >= moved[0, :2] - 1).all()
        assert (fine[2:] / 8 <= moved[0, 2:] + 1).all()
        # All of the animal's rows, moved as boxes, cover what the moved mask covers.
        rows = placement.boxes(rows_of(record["mask"]), min_visible=1e-6).boxes
        exact = np.concatenate([rows[:, :2].min(axis=0), rows[:, 2:].max(axis=0)])
        np.testing.assert_allclose(fine / 8, exact, atol=1)


def test_an_animal_that_is_moved_whole_fills_its_box():
    for index in range(40):
        record = ANIMALS[index]
        for placement in (
            Placement.flip((64, 64)),
            Placement.letterbox((64, 64), (96, 50)),
            Placement.crop((64, 64), (0, 0, 64, 64), (37, 91)),
        ):
            before = box_of(record["mask"])
            moved = placement.boxes(before[None]).boxes[0]
            # The tip of an ear is thinner than a pixel of a smaller picture.
            found = box_of(finer(placement, 4).mask(record["mask"])) / 4
            np.testing.assert_allclose(found, moved, atol=1)


def test_the_head_box_is_where_the_head_is():
    for index in range(20):
        record, rng = ANIMALS[index], np.random.default_rng(index)
        placement = chain((64, 64), rng)
        x0, y0, x1, y1 = np.rint(record["boxes"][0]).astype(int)
        mask = finer(placement, 8).mask(filled((64, 64), (x0, y0, x1, y1)))
        moved = placement.boxes(record["boxes"])
        if len(moved.boxes):
            # One pixel for rounding the box, times what the placement enlarges.
            scale = np.abs(placement.matrix[:2, :2]).sum(axis=1).max()
            np.testing.assert_allclose(
                box_of(mask) / 8, moved.boxes[0], atol=1 + 0.5 * scale
            )


def dot(size, x, y):
    """Returns a black picture with a white pixel, and a black one."""
    plain = np.zeros((*size, 3), np.uint8)
    marked = plain.copy()
    marked[int(y), int(x)] = 255
    return marked, plain


def centre_of(change):
    """Returns the centre of what two pictures differ in, `(x, y)`."""
    weight = np.abs(change.astype(float)).sum(axis=-1)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_points_are_where_the_moved_picture_has_them(size, kind):
    seen = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        kinds = KINDS if kind == "all" else {kind: KINDS[kind]}
        placement = chain(size, rng, kinds, most=3)
        row, column = rng.integers(0, size)
        point = np.array([[column + 0.5, row + 0.5, 1]], np.float32)
        marked, plain = dot(size, column, row)
        change = placement.image(marked).astype(int) - placement.image(plain)
        [(x, y, visible)] = placement.points(point)
        if not visible:
            continue
        # At a border a part of the dot may be outside.
        if np.abs(change).sum() < 20:
            assert min(x, y, *(placement.size[::-1] - np.array([x, y]))) < 2
            continue
        seen += 1
        np.testing.assert_allclose(centre_of(change), (x, y), atol=1)
    assert seen >= 10


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_ignored_where_and_only_where_the_picture_ends(size):
    white = np.full((*size, 3), 255, np.uint8)
    ones = np.ones(size, np.uint8)
    for seed in range(30):
        placement = chain(size, np.random.default_rng(seed))
        mask, image = placement.mask(ones), placement.image(white)[..., 0]
        assert set(np.unique(mask)) <= {1, IGNORE}
        # What is between white and grey is at the border.
        wrong = ((image == 255) & (mask != 1)) | ((image == 128) & (mask != IGNORE))
        assert wrong.sum() <= 0.002 * wrong.size
        assert (placement.mask(ones, fill=7) == 7).sum() == (mask == IGNORE).sum()


def test_what_left_the_picture_does_not_come_back():
    size, mask = (40, 40), np.ones((40, 40), np.uint8)
    away = Placement.translate(size, 0.5, 0).then(Placement.translate(size, -0.5, 0))
    np.testing.assert_allclose(away.matrix, np.eye(3), atol=1e-9)
    assert (away.mask(mask)[:, 20:] == IGNORE).all()
    assert (away.mask(mask)[:, :20] == 1).all()
    points = np.array([(5, 5, 1), (35, 5, 1)], np.float32)
    assert away.points(points)[:, 2].tolist() == [1, 0]
    boxes = np.array([(5, 5, 35, 9), (25, 5, 35, 9)], np.float32)
    moved = away.boxes(boxes)
    np.testing.assert_allclose(moved.boxes, [(5, 5, 20, 9)])
    assert moved.dropped == 1


def swapped(landmarks, info):
    return landmarks[list(info.mirrored)]


def test_flipping_swaps_left_and_right_and_twice_is_nothing():
    flip, mirrored = Placement.flip((64, 64)), ANIMALS.info.mirrored
    twice = flip.then(flip)
    for index in range(20):
        record = ANIMALS[index]
        points, boxes = record["landmarks"], record["boxes"]
        once = flip.points(points, mirrored)
        left_eye, right_eye, nose, left_ear, right_ear = once
        assert left_eye[0] < right_eye[0]
        assert left_ear[0] < right_ear[0]
        assert nose[0] == pytest.approx(64 - points[2, 0], abs=1e-5)
        for again in (flip.points(once, mirrored), twice.points(points, mirrored)):
            np.testing.assert_allclose(again, points, atol=1e-5)
        for again in (flip.boxes(flip.boxes(boxes).boxes), twice.boxes(boxes)):
            np.testing.assert_allclose(again.boxes, boxes, atol=1e-5)
        np.testing.assert_array_equal(twice.mask(record["mask"]), record["mask"])
        np.testing.assert_array_equal(twice.image(record["image"]), record["image"])
        mirror = record["mask"][:, ::-1]
        np.testing.assert_array_equal(flip.mask(record["mask"]), mirror)
    assert flip.is_mirrored
    assert not twice.is_mirrored


def test_only_mirroring_swaps():
    points = ANIMALS[0]["landmarks"]
    for placement in (
        Placement.rotate((64, 64), 20),
        Placement.shear((64, 64), x=0.3),
        Placement.letterbox((64, 64), (30, 40)),
    ):
        swap = placement.points(points, ANIMALS.info.mirrored)
        np.testing.assert_array_equal(swap, placement.points(points))


def test_a_box_goes_by_its_visible_share():
    # The crop shows columns 0 to 10 of 100.
    crop = Placement.crop((10, 100), (0, 0, 10, 10), (10, 10))
    widths = np.array([9.0, 99.0, 101.0])
    boxes = np.stack([0 * widths, 0 * widths, widths, 0 * widths + 10], axis=1)
    # Of the second one 10 / 99 are visible, of the third one 10 / 101.
    assert MIN_VISIBLE == 0.1
    moved = crop.boxes(boxes)
    assert moved.kept.tolist() == [True, True, False]
    assert moved.dropped == 1
    np.testing.assert_allclose(moved.boxes, [(0, 0, 9, 10), (0, 0, 10, 10)])
    turned = crop.then(Placement.rotate((10, 10), 45))
    assert turned.boxes(boxes).dropped == 2


@pytest.mark.parametrize(
    "placement", [Placement.flip((10, 10)), Placement.rotate((10, 10), 30)]
)
def test_boxes_without_area_or_out_of_sight(placement):
    boxes = np.array([(2, 2, 2, 8), (20, 20, 30, 30)], np.float32)
    moved = placement.boxes(boxes)
    assert moved.boxes.shape == (0, 4)
    assert moved.dropped == 2
    kept = placement.boxes(boxes, min_visible=0)
    assert kept.boxes.shape == (2, 4)
    assert (kept.boxes >= 0).all()
    assert (kept.boxes <= 10).all()
    none = placement.boxes(np.zeros((0, 4), np.float32))
    assert none.boxes.shape == (0, 4)
    assert none.kept.shape == (0,)
    assert none.dropped == 0


@QUICK
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    ends=st.tuples(*[st.floats(0, 0.99)] * 4),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_a_crop_maps_its_box_to_the_whole_result(rows, columns, ends, size):
    top, left = int(ends[0] * rows), int(ends[1] * columns)
    height = max(1, int(ends[2] * (rows - top)))
    width = max(1, int(ends[3] * (columns - left)))
    placement = Placement.crop((rows, columns), (top, left, height, width), size)
    corners = [(left, top, 1), (left + width, top + height, 1)]
    moved = placement.points(np.array(corners, np.float64))
    np.testing.assert_allclose(
        moved, [(0, 0, 1), (size[1], size[0], 1)], rtol=1e-5, atol=1e-4
    )
    mask = placement.mask(np.ones((rows, columns), np.uint8))
    assert (mask == 1).all()
    middles = placement.mask(np.arange(rows)[:, None].repeat(columns, 1))
    expected = top + (np.arange(size[0]) + 0.5) * height / size[0]
    assert np.abs(middles[:, 0] + 0.5 - expected).max() <= 0.5 + 1e-6


def test_placements_are_values():
    placement = chain((40, 50), np.random.default_rng(4))
    copy = pickle.loads(pickle.dumps(placement))
    assert copy == placement
    assert hash(copy) == hash(placement)
    assert Placement((3, 4)).then(placement.flip((3, 4))).size == (3, 4)
    with pytest.raises(ValueError, match=r"of \(9, 9\) cannot follow .* \(3, 4\)"):
        Placement((3, 4)).then(Placement.flip((9, 9)))
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(3, 4\)"):
        Placement((3, 4)).mask(np.zeros((4, 4), np.uint8))


def test_no_movement_changes_nothing():
    record = ANIMALS[2]
    placement = Placement((64, 64))
    np.testing.assert_array_equal(placement.mask(record["mask"]), record["mask"])
    np.testing.assert_array_equal(placement.image(record["image"]), record["image"])
    np.testing.assert_array_equal(
        placement.boxes(record["boxes"]).boxes, record["boxes"]
    )
    np.testing.assert_array_equal(
        placement.points(record["landmarks"])[:, :2], record["landmarks"][:, :2]
    )


def test_nothing_is_written_into_the_record():
    record = ANIMALS[5] | {"mirrored": ANIMALS.info.mirrored}
    before = {key: np.array(value) for key, value in record.items()}
    picture = Picture.of(record["image"]).moved(*Placement.flip((64, 64)).steps)
    picture = picture.moved(*Placement.rotate((64, 64), 9).steps)
    moved = moved_record(record, picture)
    assert moved.keys() == record.keys() | {DROPPED}
    assert moved["label"] == record["label"]
    assert moved["identity"] == record["identity"]
    for key, value in before.items():
        np.testing.assert_array_equal(record[key], value)
    assert moved_record(record | {"mask": None}, picture)["mask"] is None
