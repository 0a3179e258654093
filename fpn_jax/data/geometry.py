"""`Placement`: one movement for image, mask, boxes and points.

Coordinates are continuous: pixel `i` covers `[i, i + 1)`, so an image of width `W` is
the interval `[0, W]`; x points right, y down. Sizes are (height, width) in pixels.
Nothing here writes into its input or keeps a state.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fpn_jax.data.images.decode import Encoded, pixels
from fpn_jax.data.movements import (
    Box,
    Crop,
    Flip,
    Pad,
    Size,
    Step,
    Warp,
    rotate,
    shear,
    translate,
    warp,
)
from fpn_jax.data.records import IGNORE

MIN_VISIBLE = 0.1
"""A box is dropped if less than this share of its area stays visible."""

# A point on the border may move by this much through rounding, in pixels.
_TOLERANCE = 1e-6


class MovedBoxes(NamedTuple):
    """Boxes after a movement.

    Attributes:
      boxes: float32 `[M, 4]`, the boxes that stay visible, in the order before.
      kept: bool `[N]`, which of the boxes before they are.
      dropped: Number of boxes that are not visible any more.
    """

    boxes: np.ndarray
    kept: np.ndarray
    dropped: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """The map from the points of one picture to the points of another picture.

    The constructors below make simple placements, and `then` joins them. A point that
    leaves the picture after one of the steps stays lost: a rotation after a crop shows
    nothing from outside of the crop.

    Attributes:
      source_size: Height and width of the picture before.
      steps: The movements, the first one first.
    """

    source_size: Size
    steps: tuple[Step, ...] = ()

    @classmethod
    def crop(
        cls, source_size: Size, box: Box, size: Size, reduction: int = 1
    ) -> "Placement":
        """Cuts out a box and resizes it.

        Args:
          source_size: Size of the picture before.
          box: Part of the picture before.
          size: Size of the picture after.
          reduction: Factor by which a JPEG is reduced while it is decoded for this
            placement, from `reduction_for`.
        """
        return cls(source_size, (Crop(source_size, size, box, reduction),))

    @classmethod
    def flip(cls, source_size: Size) -> "Placement":
        """Mirrors left and right."""
        return cls(source_size, (Flip(source_size),))

    @classmethod
    def letterbox(cls, source_size: Size, size: Size) -> "Placement":
        """Resizes the picture to fit into the size, and pads it on both sides.

        Height and width have the same scale, up to rounding to whole pixels.
        """
        scale = min(size[0] / source_size[0], size[1] / source_size[1])
        inner = tuple(max(1, round(side * scale)) for side in source_size)
        corner = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        crop = Crop(source_size, inner, (0, 0, *source_size), 1)
        return cls(source_size, (crop, Pad(inner, size, corner)))

    @classmethod
    def warp(
        cls,
        source_size: Size,
        linear: np.ndarray,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> "Placement":
        """Moves the point `center + v` to `center + linear @ v + shift`.

        Args:
          source_size: Size of the picture before, and of the one after.
          linear: `[2, 2]`, applied to `(x, y)`.
          shift: `(x, y)` in pixels.
        """
        return cls(source_size, (warp(source_size, linear, shift),))

    @classmethod
    def rotate(cls, source_size: Size, degrees: float) -> "Placement":
        """Turns the picture counterclockwise around its middle."""
        return cls(source_size, (rotate(source_size, degrees),))

    @classmethod
    def shear(cls, source_size: Size, x: float = 0.0, y: float = 0.0) -> "Placement":
        """Shears the picture around its middle.

        Args:
          source_size: Size of the picture before, and of the one after.
          x: Pixels to the right for each pixel downwards.
          y: Pixels downwards for each pixel to the right.
        """
        return cls(source_size, (shear(source_size, x, y),))

    @classmethod
    def translate(cls, source_size: Size, x: float, y: float) -> "Placement":
        """Shifts the picture by a share of its width and of its height."""
        return cls(source_size, (translate(source_size, x, y),))

    def then(self, other: "Placement") -> "Placement":
        """Returns the placement that does this one first and the other one after it.

        Raises:
          ValueError: The other one is for pictures of another size.
        """
        if other.source_size != self.size:
            raise ValueError(
                f"a placement of {other.source_size} cannot follow one that makes "
                f"{self.size}"
            )
        return Placement(self.source_size, self.steps + other.steps)

    @property
    def size(self) -> Size:
        """Height and width of the result."""
        return self.steps[-1].size if self.steps else self.source_size

    @property
    def matrix(self) -> np.ndarray:
        """Affine map, float64 `[3, 3]`: `(x, y, 1)` before → `(x, y, 1)` after.

        For a JPEG that is reduced while it is decoded, the matrix is the one of the
        rounded box. It is exact for files that are stored upright. If Exif turns the
        image, its error is less than one pixel of the reduced image, and therefore of
        the result.
        """
        matrix = np.eye(3)
        for step in self.steps:
            matrix = step.matrix @ matrix
        return matrix

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right have changed places."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def inverse(self) -> "Placement":
        """The placement that takes answers about the result back to the picture before.

        `inverse.points` and `inverse.boxes(…, min_visible=0)` return coordinates in the
        picture before, `inverse.mask` returns a class map of its size.
        """
        way_back = np.linalg.inv(self.matrix)
        step = Warp.of(self.size, self.source_size, way_back)
        return Placement(self.size, (step,))

    def image(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Returns the moved image, uint8 `[h, w, 3]`, grey outside of the picture.

        Args:
          image: uint8 `[H, W, 3]`, or a JPEG of this size that is still encoded.

        Raises:
          Undecodable: The JPEG cannot be decoded; the text is the reason.
        """
        for step in self.steps:
            image = step.image(image)
        return pixels(image)

    def mask(self, mask: np.ndarray, fill: int = IGNORE) -> np.ndarray:
        """Returns the moved class map `[h, w]`, by nearest neighbour.

        Args:
          mask: `[H, W]` of the picture before.
          fill: Value where the picture after shows nothing of the picture before.

        Raises:
          ValueError: The mask is of another size than the picture.
        """
        if mask.shape != self.source_size:
            raise ValueError(f"the mask is {mask.shape}, the image {self.source_size}")
        height, width = self.size
        # One row and one column broadcast, as long as no step mixes x and y.
        x, y = np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
        inside = np.True_
        for step in reversed(self.steps):
            (a, b, c), (d, e, f), _ = np.linalg.inv(step.matrix).tolist()
            x, y = a * x + (b * y if b else 0) + c, (d * x if d else 0) + e * y + f
            rows, columns = step.source_size
            inside = inside & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        rows = np.clip(y.astype(np.int64), 0, mask.shape[0] - 1)
        columns = np.clip(x.astype(np.int64), 0, mask.shape[1] - 1)
        return np.where(inside, mask[rows, columns], mask.dtype.type(fill))

    def class_of(self, scores: np.ndarray) -> np.ndarray:
        """Returns the class with the greatest moved score, uint8 `[h, w]`.

        Scores are interpolated linearly and their border is repeated, so the border
        between two classes is smooth, unlike that of a moved mask. Only one class at a
        time has the size of the picture after.

        Args:
          scores: float32 `[H, W, C]` of the picture before, `C` at most 255.
        """
        warp = Warp.of(self.source_size, self.size, self.matrix)
        matrix, size = np.array(warp.pixel_matrix), self.size[::-1]
        best, found = None, np.zeros(self.size, np.uint8)
        for label in range(scores.shape[-1]):
            moved = cv2.warpAffine(
                np.ascontiguousarray(scores[..., label]),
                matrix,
                size,
                borderMode=cv2.BORDER_REPLICATE,
            )
            if best is None:
                best = moved
                continue
            better = moved > best
            found[better] = label
            np.maximum(best, moved, out=best)
        return found

    def points(self, points: np.ndarray, mirrored: Sequence[int] = ()) -> np.ndarray:
        """Returns the moved points, float32 `[K, 3]`; a point outside is not visible.

        Args:
          points: `[K, 3]` as `(x, y, visible)`, in pixels of the picture before.
          mirrored: Permutation for mirrored pictures, `SourceInfo.mirrored`; an empty
            one keeps the order.
        """
        moved = points[:, :2].astype(np.float64)
        inside = _inside(moved, self.source_size)
        for step in self.steps:
            moved = _moved(moved, step.matrix)
            inside = inside & _inside(moved, step.size)
        visible = np.where(inside, points[:, 2], 0)
        moved = np.column_stack([moved, visible]).astype(np.float32)
        return moved[list(mirrored)] if len(mirrored) and self.is_mirrored else moved

    def boxes(
        self, boxes: np.ndarray, *, min_visible: float = MIN_VISIBLE
    ) -> MovedBoxes:
        """Moves boxes; each becomes the bounding box of its visible part.

        Args:
          boxes: `[N, 4]` as `(x0, y0, x1, y1)`, in pixels of the picture before.
          min_visible: A box is dropped if a smaller share of its area stays visible. 0
            keeps all boxes; those outside of the picture have no area then.
        """
        matrices = [step.matrix for step in self.steps]
        corners = boxes.astype(np.float64)
        if any(m[0, 1] or m[1, 0] for m in matrices):
            found = [self._turned_box(box, matrices) for box in corners]
            shares = np.array([share for share, _ in found])
            moved = np.array([box for _, box in found]).reshape(-1, 4)
        else:
            shares, moved = self._upright_boxes(corners, matrices)
        kept = shares >= min_visible
        dropped = len(boxes) - int(kept.sum())
        return MovedBoxes(moved[kept].astype(np.float32), kept, dropped)

    def _upright_boxes(
        self, boxes: np.ndarray, matrices: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the visible share of every box, and the box of its visible part."""
        corners = boxes.reshape(-1, 2, 2)
        part = np.clip(corners, 0, self.source_size[::-1])
        for step, matrix in zip(self.steps, matrices, strict=True):
            corners, part = _moved(corners, matrix), _moved(part, matrix)
            part = np.clip(part, 0, step.size[::-1])
        area, seen = (
            np.abs(ends[:, 1] - ends[:, 0]).prod(axis=1) for ends in (corners, part)
        )
        shares = np.divide(seen, area, out=np.zeros_like(area), where=area > 0)
        return shares, np.sort(part, axis=1).reshape(-1, 4)

    def _turned_box(
        self, box: np.ndarray, matrices: list[np.ndarray]
    ) -> tuple[float, np.ndarray]:
        """Returns share and box, as `_upright_boxes`, for a box that is turned."""
        corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
        part = _clipped(corners, self.source_size)
        for step, matrix in zip(self.steps, matrices, strict=True):
            corners = _moved(corners, matrix)
            part = _clipped(_moved(part, matrix), step.size)
        area = _area(corners)
        share = _area(part) / area if area > 0 else 0.0
        ends = part if len(part) else np.clip(corners, 0, self.size[::-1])
        return share, np.concatenate([ends.min(axis=0), ends.max(axis=0)])


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _inside(points: np.ndarray, size: Size) -> np.ndarray:
    low, high = -_TOLERANCE, np.array(size[::-1]) + _TOLERANCE
    return ((points >= low) & (points <= high)).all(axis=1)


def _clipped(polygon: np.ndarray, size: Size) -> np.ndarray:
    """Returns the part `[M, 2]` of a convex polygon `[N, 2]` inside an image.

    "Reentrant Polygon Clipping" (Sutherland and Hodgman, 1974): each border of the
    image cuts the polygon in turn.
    """
    for axis, sign, border in (
        (0, 1, 0),
        (0, -1, size[1]),
        (1, 1, 0),
        (1, -1, size[0]),
    ):
        depth = sign * (polygon[:, axis] - border)
        if (depth >= 0).all():
            continue
        kept = []
        following = np.roll(polygon, -1, axis=0), np.roll(depth, -1)
        for p, d, q, e in zip(polygon, depth, *following, strict=True):
            if d >= 0:
                kept.append(p)
            if (d < 0) != (e < 0):
                kept.append(p + (q - p) * (d / (d - e)))
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
