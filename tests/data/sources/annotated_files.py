"""Images and annotations that tests of the sources write."""

import numpy as np
from PIL import Image

XML = """<annotation><filename>{name}.jpg</filename>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>
<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"""


def photograph(path, size=(30, 20), orientation=None, seed=0):
    """Writes a JPEG of width × height as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(path, "JPEG", quality=90, exif=exif)


def mask(path, values, palette=False):
    """Writes a mask of integers, grey or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image = Image.fromarray(np.asarray(values, np.uint8), "P")
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def xml(path, boxes, size=(30, 20)):
    """Writes boxes `(label, xmin, ymin, xmax, ymax)`, 1-based and inclusive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("label", "x0", "y0", "x1", "y1")
    objects = "".join(OBJECT.format(**dict(zip(keys, b, strict=True))) for b in boxes)
    width, height = size
    text = XML.format(name=path.stem, width=width, height=height, objects=objects)
    path.write_text(text)
