"""Why a file of another format is not decoded, told from its first bytes."""

import re

_IMAGES = {
    "HEIC": rb".{4}ftyp(?:hei[cfmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XR": rb"II\xbc",
    "camera raw": rb"FUJIFILMCCD-RAW|II.\0.{4}CR|IIRO|IIU\0|.{4}ftypcrx ",
    "Photoshop": rb"8BPS",
    "GIMP": rb"gimp xcf",
    "SVG": rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg|<svg)",
    "icon": rb"\0\0[\x01\x02]\0|icns",
    "netpbm": rb"P[1-7]\s",
    "QOI": rb"qoif",
}
_OTHERS = {
    "HTML": rb"(?i:\s*<(?:!doctype html|html))",
    "a PDF": rb"%PDF",
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a video": rb".{4}ftyp|\x1aE\xdf\xa3",
    "a ZIP archive": rb"PK\x03\x04",
}
_REASONS = [
    (re.compile(pattern, re.DOTALL), reason)
    for patterns, text in (
        (_IMAGES, "{} files are not supported; convert it to JPEG or PNG"),
        (_OTHERS, "the content is {}, not an image"),
    )
    for name, pattern in patterns.items()
    for reason in [text.format(name)]
]


def reason(data: bytes) -> str | None:
    """Returns why a file cannot be decoded, or None if its format is not known.

    Args:
      data: The bytes of a file.

    Example:
      >>> reason(b"%PDF-1.7"), reason(b"some text")
      ('the content is a PDF, not an image', None)
    """
    beginning = data[:1024]
    return next((text for p, text in _REASONS if p.match(beginning)), None)
