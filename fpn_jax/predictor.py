"""Applies a trained model to image files; coordinates are in pixels of each image."""

import dataclasses
import functools
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from fpn_jax.data import files
from fpn_jax.data.crops import Letterbox, ResizeAndCenterCrop
from fpn_jax.data.geometry import Placement
from fpn_jax.data.images import decode
from fpn_jax.data.records import FIELDS, SourceInfo
from fpn_jax.errors import InputError
from fpn_jax.views.base import View

PROBABILITIES = "mask_probabilities"
"""Key of an answer: the probability of every class in every pixel."""
MAX_BATCH, MAX_BATCH_BYTES = 64, 2**28
"""Most images of a batch, and most bytes of its answers."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one file.

    Attributes:
      path: The file.
      answer: The answer, with coordinates in pixels of the image; None if there is an
        error.
      image: The decoded image, uint8 `[H, W, 3]`; None if there is an error.
      error: Why the file cannot be used; empty if it can.
    """

    path: str
    answer: dict[str, np.ndarray] | None = None
    image: np.ndarray | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model as a function of images.

    Attributes:
      answer: uint8 `[B, *image_size, 3]` → answer with leading dimension `B`; can be
        traced.
      transform: Record of any image size → record of the network's input size.
      info: Classes and landmarks of the training data.
      view: Shows the answers.
      image_size: Height and width of the network's input, in pixels.
      exports: Keys of the answer that an exported model returns; `()` means all.
      background: RGB behind transparent pixels, 0 to 255.
    """

    answer: Callable[[jax.Array], dict[str, jax.Array]]
    transform: ResizeAndCenterCrop | Letterbox
    info: SourceInfo
    view: View
    image_size: tuple[int, int]
    exports: tuple[str, ...] = ()
    background: tuple[int, int, int] = decode.WHITE

    @functools.cached_property
    def batch_size(self) -> int:
        """Number of images in each batch; the larger the answers, the fewer."""
        image = jax.ShapeDtypeStruct((1, *self.image_size, 3), np.uint8)
        answers = jax.tree.leaves(jax.eval_shape(self.answer, image))
        size = sum(answer.size * answer.dtype.itemsize for answer in answers)
        return max(1, min(MAX_BATCH, MAX_BATCH_BYTES // max(size, 1)))

    @functools.cached_property
    def compiled(self) -> Callable[[Any], dict[str, jax.Array]]:
        """The function `answer`, compiled."""
        return jax.jit(self.answer)

    def exported(self, images: jax.Array) -> Any:
        """Returns the outputs of the exported model; can be traced.

        Args:
          images: uint8 `[B, *image_size, 3]`.

        Returns:
          A dict with the keys `exports` of the answer; if `exports` has a single key,
          the array itself.
        """
        answer = self.answer(images)
        chosen = {key: answer[key] for key in self.exports or answer}
        return next(iter(chosen.values())) if len(self.exports) == 1 else chosen

    def predict_images(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Returns the answer for each image, with coordinates in pixels of that image.

        Args:
          images: uint8 `[H, W, 3]`, RGB, of any sizes; at most `batch_size`.
        """
        # Every batch has the same shape, so that the model is compiled once.
        batch = np.zeros((self.batch_size, *self.image_size, 3), np.uint8)
        for row, image in enumerate(images):
            batch[row] = self.transform({"image": image})["image"]
        answers = jax.device_get(self.compiled(batch))
        return [
            in_image(
                {key: values[row] for key, values in answers.items()},
                self.transform.placement(image.shape[:2]),
            )
            for row, image in enumerate(images)
        ]

    def predict(self, paths: Sequence[str]) -> Iterator[Prediction]:
        """Yields a prediction for every file, in order.

        Args:
          paths: Files. The prediction for an unreadable file has an `error`.
        """

        def read(path: str) -> np.ndarray | str:
            try:
                return decode.decode_file(path, background=self.background)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor() as threads:
            for start in range(0, len(paths), self.batch_size):
                some = paths[start : start + self.batch_size]
                images = list(threads.map(read, some))
                good = [image for image in images if not isinstance(image, str)]
                answers = iter(self.predict_images(good))
                for path, image in zip(some, images, strict=True):
                    if isinstance(image, str):
                        yield Prediction(path, error=image)
                    else:
                        yield Prediction(path, next(answers), image)


def in_image(
    answer: dict[str, np.ndarray], placement: Placement
) -> dict[str, np.ndarray]:
    """Maps an answer from pixels of the network's input to pixels of the image.

    Args:
      answer: The answer for one image. `mask`, `boxes` and `landmarks` are mapped; all
        other values stay unchanged. With `mask_probabilities`, which are not returned,
        the mask is the class of the greatest probability between their pixels.
      placement: Maps the image to the network's input.
    """
    back, moved = placement.inverse, dict(answer)
    probabilities = moved.pop(PROBABILITIES, None)
    for name, values in answer.items():
        if name == "mask" and probabilities is not None:
            moved[name] = back.class_of(probabilities)
            continue
        kind = FIELDS[name].kind if name in FIELDS else "label"
        if kind == "class_map":
            moved[name] = back.mask(values)
        elif kind == "points":
            moved[name] = back.points(values)
        elif kind == "boxes":
            # Keep all boxes, because scores and labels have the same order.
            moved[name] = back.boxes(values, min_visible=0).boxes
    return moved


def find(patterns: Sequence[str]) -> list[str]:
    """Returns the files that match the patterns, in order and without repetition.

    Args:
      patterns: Files, folders (all images below them, also of formats that cannot be
        decoded) or globs (`**` matches any
        number of folders). The path of a missing file is returned unchanged, so that
        the caller can report it.

    Raises:
      InputError: A glob or a folder matches no image file.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if os.path.isdir(pattern):
            found_below = files.find_below(pattern)
            names = [*found_below.images, *found_below.unsupported]
            paths = [os.path.join(pattern, name) for name in sorted(names, key=_parts)]
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            matches = sorted(glob.glob(pattern, recursive=True))
            paths = [path for path in matches if os.path.isfile(path)]
        else:
            paths = [pattern]
        if not paths:
            raise InputError(f"--input={pattern} matches no image files")
        found |= dict.fromkeys(paths)
    return list(found)


def _parts(path: str) -> list[str]:
    # Files come before the files of folders whose names sort later.
    return path.split("/")
