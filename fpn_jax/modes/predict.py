"""`--mode=predict`: predicts image files, as a table or as pictures."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fpn_jax import paths
from fpn_jax.data.records import printable
from fpn_jax.errors import InputError
from fpn_jax.modes import Options
from fpn_jax.predictor import Prediction, Predictor, find
from fpn_jax.trained import load

SUMMARY = "Predicts image files, and writes the answers to a table or into pictures."
TAKES = frozenset({"workdir", "checkpoint", "input", "output"})
NEEDS = frozenset({"workdir", "input"})

TABLE = "predictions.csv"
"""Name of the table in a folder of pictures."""
RESULTS = "results.json"
"""Name of the file of boxes in a folder of pictures, in COCO's format of results."""


def run(options: Options) -> int:
    """Predicts image files and writes the answers.

    Args:
      options: The values of the flags.

    Returns:
      The exit code: 1 if a file cannot be read, which its row explains; otherwise 0.

    Raises:
      InputError: The input matches no image file, the output has an unknown suffix or
        no folder, or the checkpoint does not exist.
    """
    output, inputs = options.output, find(options.input)
    folder = output is not None and (output.endswith(os.sep) or Path(output).is_dir())
    suffix = Path(output).suffix if output and not folder else ".csv"
    _check_output(output, folder, suffix, inputs)
    predictor = load(options.workdir, options.checkpoint).predictor()
    predictions = predictor.predict(inputs)
    if folder:
        predictions = _drawn(predictor, predictions, Path(output))
        output = str(Path(output) / TABLE)
    rows = [row for one in predictions for row in table_rows(predictor, one)]
    failed = sum(bool(row["error"]) for row in rows)
    text = json.dumps(rows, indent=2) + "\n" if suffix == ".json" else _csv(rows)
    if output:
        Path(output).write_text(text, encoding="utf-8", errors="surrogateescape")
        images = len({row["path"] for row in rows}) - failed
        print(f"{output}: {images} images predicted", end="")
        print(f", {failed} failed: see the column error" if failed else "")
    else:
        # A file name may be invalid UTF-8; fsencode restores its original bytes.
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.flush()
    return 1 if failed else 0


def _check_output(
    output: str | None, folder: bool, suffix: str, inputs: Sequence[str]
) -> None:
    """Refuses an output that cannot be written, or that would replace an input."""
    if output == "":
        raise InputError("--output is empty; leave it out to print a table")
    if suffix not in (".csv", ".json"):
        raise InputError(
            f"--output={output} ends in {suffix!r}; give a .csv or .json file, or a "
            f"folder whose path ends in {os.sep}"
        )
    if output and not Path(output).absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist")
    if output and not folder:
        paths.check_writable(Path(output))
    folders = {Path(path).parent.resolve() for path in inputs}
    if folder and output and Path(output).resolve() in folders:
        raise InputError(
            f"--output={output} is the folder of an input image, which a drawing could "
            "replace; give another folder"
        )


def table_rows(predictor: Predictor, prediction: Prediction) -> list[dict[str, Any]]:
    """Returns the rows of the table for one file.

    Args:
      predictor: The model.
      prediction: The prediction for the file.

    Returns:
      Rows with `path`, the columns of the view, and `error`. If there is an error, the
      columns of the view are empty.
    """
    columns = predictor.view.columns(predictor.info)
    if prediction.answer is None:
        empty = dict.fromkeys(columns, "")
        return [{"path": prediction.path, **empty, "error": prediction.error}]
    lines = predictor.view.rows(prediction.answer, predictor.info)
    return [
        {
            "path": prediction.path,
            **{column: line[column] for column in columns},
            # A view reports an answer that means nothing, such as one with NaN.
            "error": line.get("error", ""),
        }
        for line in lines
    ]


def _drawn(
    predictor: Predictor, predictions: Iterable[Prediction], folder: Path
) -> Iterable[Prediction]:
    """Yields the predictions, and writes a picture of each one into a folder.

    Boxes are also written as COCO's results, when all predictions have been made.
    """
    folder.mkdir(exist_ok=True)
    paths.check_writable(folder / TABLE)
    taken: set[str] = set()
    view, info, results = predictor.view, predictor.info, None
    for number, prediction in enumerate(predictions, start=1):
        if prediction.answer is not None:
            picture = view.draw(prediction.image, prediction.answer, info)
            pictures = {"": picture} | view.files(prediction.answer, info)
            stem = _free_stem(Path(prediction.path).stem, pictures, taken)
            for ending, picture in pictures.items():
                _write_png(folder / f"{stem}{ending}.png", picture)
            found = view.results(prediction.answer, info)
            if found is not None:
                image = _image_of(prediction.path, number)
                results = results or []
                results += [image | entry for entry in found]
        yield prediction
    if results is not None:
        (folder / RESULTS).write_text(json.dumps(results, indent=1) + "\n")


def _image_of(path: str, number: int) -> dict[str, Any]:
    """Returns the name of an image, and its number: that of its name if it is one."""
    stem = Path(path).stem
    named = int(stem) if stem.isascii() and stem.isdigit() else number
    return {"image_id": named, "file_name": printable(Path(path).name)}


def _write_png(path: Path, picture: np.ndarray) -> None:
    # OpenCV crashes if it writes to a name that is not UTF-8.
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    _, encoded = cv2.imencode(".png", bgr)
    path.write_bytes(encoded)


def _free_stem(stem: str, endings: Iterable[str], taken: set[str]) -> str:
    """Returns the beginning of file names that no earlier picture has."""
    free, number = stem, 2
    while any(f"{free}{ending}" in taken for ending in endings):
        free, number = f"{stem}_{number}", number + 1
    taken.update(f"{free}{ending}" for ending in endings)
    return free


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
