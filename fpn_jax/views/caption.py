"""A caption below a picture: a name and its probability."""

import bisect
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fpn_jax.data.records import printable
from fpn_jax.report.templates import percent

LEGIBLE_WIDTH = 128
FONT_SIZES = (12, 48)
BACKGROUND, TRACK, FILL = (25, 28, 34), (58, 65, 78), (107, 156, 245)
NAME, NUMBER = (255, 255, 255), (196, 205, 218)


def caption(image: np.ndarray, name: str, probability: float) -> np.ndarray:
    """Returns a picture with a bar below it that shows a name and its probability.

    The bar hides nothing of the picture, and its text has the same contrast below any
    picture. A long name is shortened.

    Args:
      image: uint8 `[H, W, 3]`, RGB. A picture below 128 pixels on its longer side is
        enlarged by a whole factor, so that the text is legible.
      name: What the picture shows. Characters that DejaVu Sans lacks become boxes.
      probability: 0 to 1, shown in per cent and as the filled part of a line; not
        finite is shown as a dash.

    Returns:
      uint8 `[H', W', 3]`, RGB.
    """
    factor = max(-(-LEGIBLE_WIDTH // max(image.shape[:2])), 1)
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = image.shape[0], max(image.shape[1], LEGIBLE_WIDTH)
    size = int(np.clip(min(image.shape[1], 2 * height) / 20, *FONT_SIZES))
    bar = _bar(width, size, printable(name), probability)
    canvas = np.full((height + len(bar), width, 3), BACKGROUND, np.uint8)
    canvas[:height, : image.shape[1]] = image
    canvas[height:] = bar
    return canvas


def _bar(width: int, size: int, name: str, probability: float) -> np.ndarray:
    """Returns the caption, uint8 `[h, width, 3]`, with text of `size` pixels."""
    line, margin = max(size // 6, 2), round(0.6 * size)
    height = line + round(2.1 * size)
    bar = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(bar)
    filled = round(width * float(np.clip(np.nan_to_num(probability), 0, 1)))
    draw.rectangle((0, 0, width - 1, line - 1), fill=TRACK)
    if filled:
        draw.rectangle((0, 0, filled - 1, line - 1), fill=FILL)
    bold, regular = font("DejaVuSans-Bold", size), font("DejaVuSans", size)
    number = percent(probability)
    middle = (line + height) // 2
    draw.text((width - margin, middle), number, NUMBER, regular, anchor="rm")
    space = width - 3 * margin - draw.textlength(number, regular)
    draw.text((margin, middle), _shortened(name, bold, space), NAME, bold, anchor="lm")
    return np.asarray(bar)


def _shortened(name: str, font: ImageFont.FreeTypeFont, space: float) -> str:
    if font.getlength(name) <= space:
        return name
    # The index of the first length that is too large is one more than what fits.
    too_long = bisect.bisect_right(
        range(len(name)), space, key=lambda kept: font.getlength(f"{name[:kept]}…")
    )
    return f"{name[: max(too_long - 1, 0)].rstrip()}…"


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns one of the fonts that are installed with matplotlib.

    Args:
      name: Such as "DejaVuSans" or "DejaVuSans-Bold".
      size: Height of the letters, in pixels.
    """
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
