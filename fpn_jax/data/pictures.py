"""An image on its way through an augmentation, and the record that follows it."""

from typing import NamedTuple

import numpy as np

from fpn_jax.data.geometry import Placement
from fpn_jax.data.images.decode import Encoded
from fpn_jax.data.movements import Size, Step
from fpn_jax.data.records import DROPPED, FIELDS, OF_BOXES, Record

_MOVING = {
    name for name, field in FIELDS.items() if field.kind not in ("label", "of_boxes")
}


class Picture(NamedTuple):
    """An image on its way through an augmentation, and how it was moved so far.

    Attributes:
      image: uint8 `[H, W, 3]`, or a JPEG that is still encoded.
      source_size: Height and width of the record's image.
      steps: The movements from the record's image to this one.
    """

    image: np.ndarray | Encoded
    source_size: Size
    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, image: np.ndarray | Encoded) -> "Picture":
        """Returns the picture of an image before any movement."""
        return cls(image, image.shape[:2])

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        return self.steps[-1].size if self.steps else self.source_size

    @property
    def placement(self) -> Placement:
        """The placement from the record's image to this one."""
        return Placement(self.source_size, self.steps)

    def moved(self, *steps: Step) -> "Picture":
        """Returns the picture after more movements."""
        image = self.image
        for step in steps:
            image = step.image(image)
        return Picture(image, self.source_size, self.steps + steps)

    def recoloured(self, image: np.ndarray) -> "Picture":
        """Returns the picture with other colours; no pixel moves."""
        return Picture(image, self.source_size, self.steps)


def moved_record(record: Record, picture: Picture) -> Record:
    """Returns a record with the image of a picture, and every field moved with it.

    Args:
      record: Has `image`, fields of `FIELDS`, and for landmarks `mirrored`, their
        permutation. A field that is None stays None.
      picture: The record's image after all movements.

    Returns:
      A new record. With boxes it also has `dropped_boxes`, the number of boxes that are
      not visible any more.
    """
    result, placement = {**record, "image": picture.image}, None
    for name, value in record.items():
        if name not in _MOVING or value is None:
            continue
        placement = placement or picture.placement
        kind = FIELDS[name].kind
        if kind == "class_map":
            result[name] = placement.mask(value)
        elif kind == "points":
            result[name] = placement.points(value, record.get("mirrored", ()))
        elif kind == "boxes":
            boxes, kept, dropped = placement.boxes(value)
            result |= {"boxes": boxes, DROPPED: record.get(DROPPED, 0) + dropped}
            for other in OF_BOXES:
                if record.get(other) is not None:
                    result[other] = record[other][kept]
    return result
