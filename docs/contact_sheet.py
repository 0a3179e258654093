"""Makes the picture of the drawn data: `python docs/contact_sheet.py OUT.png`."""

import sys

import cv2
import numpy as np
from PIL import Image

from fpn_jax.data.records import Record
from fpn_jax.data.sources.drawn import CLASSES, draw

TILE, GAP, CAPTION = 128, 6, 16
"""Side of a tile, gap between tiles, height of a caption, in pixels."""

COLUMNS, ROWS = 8, 5
"""Tiles in a row, and rows without annotations."""

COLOURS = 128
"""Colours of the palette of the file."""

BACKGROUND, TEXT = (250, 248, 244), (60, 56, 60)
MASK, BOX, POINT = (255, 64, 160), (255, 210, 0), (0, 230, 255)


def annotated(record: Record) -> np.ndarray:
    """Returns the image with the outline of its mask, its head box and landmarks.

    Args:
      record: A record of the drawn data.
    """
    image = record["image"].copy()
    outlines, _ = cv2.findContours(
        record["mask"], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(image, outlines, -1, MASK, 5)
    x0, y0, x1, y1 = np.rint(record["boxes"][0]).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), BOX, 5)
    for x, y, visible in record["landmarks"]:
        if visible:
            cv2.circle(image, (int(x), int(y)), 11, POINT, -1, cv2.LINE_AA)
    return image


def sheet() -> np.ndarray:
    """Returns rows of images, and a last row of images with their annotations."""
    height = (ROWS + 1) * (TILE + GAP + CAPTION) + GAP
    page = np.full((height, COLUMNS * (TILE + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for index in range((ROWS + 1) * COLUMNS):
        row, column = divmod(index, COLUMNS)
        record = draw(seed=0, split="train", index=index, image_size=4 * TILE)
        tile = record["image"] if row < ROWS else annotated(record)
        tile = cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_AREA)
        y, x = GAP + row * (TILE + GAP + CAPTION), GAP + column * (TILE + GAP)
        page[y : y + TILE, x : x + TILE] = tile
        caption = f"{CLASSES[record['label']]} {record['identity']}"
        position = (x + 2, y + TILE + 12)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(page, caption, position, font, 0.4, TEXT, 1, cv2.LINE_AA)
    return page


if __name__ == "__main__":
    page = Image.fromarray(sheet()).quantize(COLOURS, dither=Image.Dither.NONE)
    page.save(sys.argv[1], optimize=True)
