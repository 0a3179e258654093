"""Photographs → a table of classes and probabilities."""

import csv
import dataclasses
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fpn_jax.data.images import decode
from fpn_jax.data.sources.folder import is_image
from fpn_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained model as a function of images.

    Attributes:
      probabilities: uint8 `[B, S, S, 3]` → float32 `[B, classes]`; can be traced.
      transform: Image of any size → uint8 `[S, S, 3]`.
      classes: Names of the classes.
      image_size: `S`, in pixels.
      background: RGB, 0 to 255, seen through transparent pixels.
      batch_size: Images that are predicted at a time.
    """

    probabilities: Callable
    transform: Callable[[np.ndarray], np.ndarray]
    classes: tuple[str, ...]
    image_size: int
    background: tuple[int, int, int] = decode.WHITE
    batch_size: int = 64


def find(patterns: Sequence[str]) -> list[str]:
    """Returns the files that patterns name, each once, in order.

    Args:
      patterns: Files, folders (all images below) or globs (`**` crosses folders). A
        plain path that does not exist is returned as it is, to be reported.

    Raises:
      InputError: A glob or a folder has no image.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if os.path.isdir(pattern):
            paths = [str(p) for p in sorted(Path(pattern).rglob("*")) if is_image(p)]
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            matches = sorted(glob.glob(pattern, recursive=True))
            paths = [path for path in matches if os.path.isfile(path)]
        else:
            paths = [pattern]
        if not paths:
            raise InputError(f"--input={pattern} names no image")
        found |= dict.fromkeys(paths)
    return list(found)


def predict(classifier: Classifier, paths: Sequence[str]) -> Iterator[dict]:
    """Yields a row for every file, in order.

    Args:
      classifier: The model.
      paths: Files; those that cannot be read or decoded whole get an `error`.

    Yields:
      `path`, `class`, `probability_CLASS` for every class, and `error`; either the
      error is empty or the others are.
    """

    def read(path: str) -> np.ndarray | str:
        try:
            image = decode.decode_file(path, background=classifier.background)
        except ValueError as error:
            return str(error)
        return classifier.transform({"image": image})["image"]

    size, columns = classifier.image_size, _probability_columns(classifier.classes)
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(paths), classifier.batch_size):
            some = paths[start : start + classifier.batch_size]
            images = list(threads.map(read, some))
            # One shape for every batch, so that nothing is compiled twice.
            batch = np.zeros((classifier.batch_size, size, size, 3), np.uint8)
            for row, image in enumerate(images):
                if not isinstance(image, str):
                    batch[row] = image
            probabilities = np.asarray(classifier.probabilities(batch))
            for path, image, row in zip(some, images, probabilities, strict=False):
                if isinstance(image, str):
                    empty = dict.fromkeys(columns, "")
                    yield {"path": path, "class": "", **empty, "error": image}
                    continue
                values = dict(
                    zip(columns, (round(float(p), 6) for p in row), strict=True)
                )
                name = classifier.classes[int(row.argmax())]
                yield {"path": path, "class": name, **values, "error": ""}


def _probability_columns(classes: Sequence[str]) -> list[str]:
    return [f"probability_{name}" for name in classes]


def run(classifier: Classifier, patterns: Sequence[str], output: str | None) -> int:
    """Predicts files and writes the table; returns the exit code.

    Args:
      classifier: The model.
      patterns: As of `find`.
      output: A `.csv` or `.json` file, or None to print CSV.

    Returns:
      0, or 1 where a file could not be read; its row says why.

    Raises:
      InputError: Nothing is named, or the output cannot be written.
    """
    suffix = Path(output).suffix if output else ".csv"
    if suffix not in (".csv", ".json"):
        raise InputError(f"--output={output} ends in {suffix!r}; take .csv or .json")
    if output and not Path(output).absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist")
    rows = list(predict(classifier, find(patterns)))
    failed = [row for row in rows if row["error"]]
    text = json.dumps(rows, indent=2) + "\n" if suffix == ".json" else _csv(rows)
    if output:
        Path(output).write_text(text, encoding="utf-8", errors="surrogateescape")
        print(f"{output}: {len(rows) - len(failed)} images predicted", end="")
        print(f", {len(failed)} could not be read" if failed else "")
    else:
        # A file's name need not be text, and goes out as the bytes that it is.
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.flush()
    return 1 if failed else 0


def _csv(rows: Sequence[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
