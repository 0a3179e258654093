"""Which files below a folder are images, for training, check and prediction."""

import collections
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fpn_jax.errors import InputError

DECODABLE = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi", ".mpo"),
        *(".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif", ".tiff"),
    }
)
"""Suffixes of image files that can be decoded, in lower case."""

NOT_DECODABLE = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avifs", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr"),
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf"),
        *(".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".raw"),
        *(".psd", ".psb", ".xcf", ".svg", ".svgz", ".eps", ".ico", ".icns", ".tga"),
        *(".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dds", ".qoi"),
    }
)
"""Suffixes of image files that cannot be decoded, in lower case."""

_JUNK = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "$recycle.bin", "__pycache__", "thumbs"),
        *("thumbs.db", "system volume information", "lost+found", "desktop.ini"),
        *("@recycle", "@recently-snapshot", "recycler", "recycled", "cvs"),
    }
)
"""Names that operating systems, file servers and tools leave behind, in lower case."""


def is_junk(name: str) -> bool:
    """Returns whether a file or folder is hidden or left behind by a tool.

    Args:
      name: Its name, without a folder.
    """
    return name.startswith(".") or name.lower() in _JUNK


class Found(NamedTuple):
    """The image files below a folder, as POSIX paths relative to it.

    Attributes:
      images: Image files that can be decoded, by their suffix.
      unsupported: Image files of formats that cannot be decoded, by their suffix.
    """

    images: list[str]
    unsupported: list[str]


def find_below(folder: str | os.PathLike) -> Found:
    """Returns the visible image files at any depth below a folder, in no order.

    Links to folders are followed, except to a folder that contains the link. Hidden
    files and folders, and those that tools leave behind, are skipped (`is_junk`).

    Args:
      folder: The folder.

    Raises:
      InputError: A folder cannot be read.
    """
    found = Found([], [])
    for path in _walk(Path(folder)):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in DECODABLE:
            found.images.append(path)
        elif suffix in NOT_DECODABLE:
            found.unsupported.append(path)
    return found


def holds_images(folder: str | os.PathLike) -> bool:
    """Returns whether there is an image file below a folder, decodable or not.

    Args:
      folder: The folder.

    Raises:
      InputError: A folder cannot be read.
    """
    suffixes = DECODABLE | NOT_DECODABLE
    paths = _walk(Path(folder))
    return any(os.path.splitext(path)[1].lower() in suffixes for path in paths)


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted, without hidden ones and junk.

    Args:
      folder: The folder.

    Raises:
      InputError: The folder cannot be read.
    """
    try:
        listed = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(path for path in listed if path.is_dir() and not is_junk(path.name))


def count_by_suffix(paths: Iterable[str]) -> str:
    """Returns the number of files of each suffix, as text.

    Example:
      >>> count_by_suffix(["a.heic", "b.HEIC", "c.cr2"])
      '.heic 2, .cr2 1'
    """
    suffixes = (os.path.splitext(path)[1].lower() or "no suffix" for path in paths)
    counts = collections.Counter(suffixes)
    return ", ".join(f"{suffix} {count}" for suffix, count in counts.most_common())


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}")


def _walk(folder: Path) -> Iterator[str]:
    ancestors = {str(folder): frozenset({os.path.realpath(folder)})}
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        seen = ancestors.pop(parent)
        kept = []
        for name in folders:
            path = os.path.join(parent, name)
            real = os.path.realpath(path)
            # Following a link to one of its own parent folders would never end.
            if not is_junk(name) and real not in seen:
                ancestors[path] = seen | {real}
                kept.append(name)
        folders[:] = kept
        below = os.path.relpath(parent, folder)
        for name in names:
            if not is_junk(name):
                path = name if below == "." else os.path.join(below, name)
                yield path.replace(os.sep, "/")
