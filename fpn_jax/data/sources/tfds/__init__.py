"""Images of TensorFlow Datasets, read in any order and without TensorFlow.

TensorFlow is needed once, to prepare a data set:
`python -m fpn_jax.data.sources.tfds NAME`.
"""

import difflib
import functools
import os
import re
from collections.abc import Iterable

from fpn_jax.data.images import decode, reading
from fpn_jax.data.records import SPLITS, AbsentSplit, BadRecord, Record, SourceInfo
from fpn_jax.data.sources.layout import split_named
from fpn_jax.errors import InputError, unknown, within

COMMAND = "python -m fpn_jax.data.sources.tfds"
"""The command that prepares a data set."""

LABEL_KEYS = {"oxford_iiit_pet": "species"}
"""Data set → the feature that is its label, where the usual rule finds another one."""


class TfdsSource:
    """The images of one split of a prepared TFDS data set.

    A split that the data set has is used as it is, by any name of
    `layout.split_named`. A split that it lacks is cut off the end of its `train`,
    each with the share `validate_fraction`. With 0.1, `cats_vs_dogs`, which has only
    `train`, becomes `train[:80%]`, `train[80%:90%]` for `validate` and `train[90%:]`
    for `test`; of `oxford_iiit_pet`, which has `train` and `test`, the last 10% of
    `train` become `validate`. `test` is cut off only if `validate` is missing as well.
    TFDS shuffles a data set when it prepares it, so a slice has all classes, and it is
    the same for everyone.

    Args:
      split: `train`, `validate` or `test`.
      root: The folder that holds the prepared data set; TFDS' own default if empty.
      dataset: Name of the data set, such as `cats_vs_dogs` or `oxford_iiit_pet`.
      image_key: Name of the feature that is the image.
      label_key: Name of the feature that is the label. None takes the one of
        `LABEL_KEYS`, or else the only class label, or else `label`.
      validate_fraction: Share of `train`, in (0, 0.5), of every split that is cut off.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Attributes:
      info: Classes, and the field `label`.

    Raises:
      InputError: The data set is unknown, is not prepared or has no random access, or
        it lacks the split or one of the features.
    """

    def __init__(
        self,
        split: str,
        root: str | os.PathLike = "",
        *,
        dataset: str = "cats_vs_dogs",
        image_key: str = "image",
        label_key: str | None = None,
        validate_fraction: float = 0.1,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
    ):
        import tensorflow_datasets as tfds

        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        within(
            "validate_fraction",
            validate_fraction,
            0,
            0.5,
            open_low=True,
            open_high=True,
        )
        data_dir = os.fspath(root) or None
        builder = load_builder(dataset, data_dir)
        sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
        if not sizes:
            where = f" --data_dir={data_dir}" if data_dir else ""
            raise InputError(
                f"the data set {dataset!r} is not prepared in {builder.data_path}; run "
                f'pip install -e ".[tf]" && {COMMAND} {dataset}{where}'
            )
        features = builder.info.features
        images = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
        if image_key not in images:
            raise unknown(f"image feature of {dataset}", image_key, images)
        self._image_key = image_key
        self._label_key = _label_key(dataset, features, label_key)
        self._background, self._encoded = background, encoded
        self._instruction = _instruction(dataset, sizes, split, validate_fraction)
        self._name, self._folder = dataset, builder.data_path
        self.info = SourceInfo(tuple(features[self._label_key].names), ("label",))
        random_access = tfds.core.FileFormat.with_random_access()
        if not builder.info.available_file_formats() & random_access:
            raise InputError(
                f"the data set {dataset!r} in {builder.data_path} is prepared as "
                f"{builder.info.file_format.value}, which has no random access; "
                "prepare it as array_record in another data_dir: "
                f"{COMMAND} {dataset} --data_dir=DIR"
            )
        self._data = builder.as_data_source(
            split=self._instruction,
            decoders={key: tfds.decode.SkipDecoding() for key in images},
        )

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            record = reading.fetch(*self._read(index))
            data = record[self._image_key]
            image = decode.open_encoded(data, background=self._background)
            if not self._encoded:
                image = decode.pixels(image)
        except (ValueError, RuntimeError, TimeoutError) as error:
            # RuntimeError: a wrong checksum of ArrayRecord, or a deleted file.
            raise BadRecord(self.id(index), str(error)) from error
        return {"image": image, "label": int(record[self._label_key])}

    def read_ahead(self, indices: Iterable[int]) -> None:
        """Starts to read the records that this thread reads next."""
        reading.prefetch(map(self._read, indices))

    def _read(self, index: int) -> tuple[str, reading.Call]:
        # The folder belongs to the name: two folders may have the same data set.
        name = f"{self._folder}:{self._instruction}:{index}"
        return name, functools.partial(self._data.__getitem__, index)

    def id(self, index: int) -> str:
        """Returns the data set, the slice of it, and the index in the slice."""
        return f"{self._name}:{self._instruction}:{index}"


def load_builder(name: str, data_dir: str | os.PathLike | None):
    """Returns TFDS' builder of a data set.

    Args:
      name: Name of the data set, such as `cats_vs_dogs`.
      data_dir: The folder it was or will be prepared in; TFDS' own default if None.

    Raises:
      InputError: TFDS has no data set of this name; names close ones.
    """
    import tensorflow_datasets as tfds

    if not re.fullmatch(r"[a-z0-9_]+(/[\w.-]+)?(:[\d.]+)?", name):
        raise InputError(
            f"the TFDS data set is {name!r}; TFDS writes names as cats_vs_dogs"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    # AssertionError: the data set has no such version.
    except (tfds.core.DatasetNotFoundError, AssertionError) as error:
        names = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise InputError(
            f"TFDS has no data set {name!r}; names close to it: "
            f"{', '.join(close) or 'none'}"
        ) from error


def _label_key(name: str, features, label_key: str | None) -> str:
    import tensorflow_datasets as tfds

    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if label_key is None:
        label_key = LABEL_KEYS.get(name, labels[0] if len(labels) == 1 else "label")
    if label_key not in labels:
        raise unknown(f"label feature of {name}", label_key, labels)
    return label_key


def _instruction(name: str, sizes: dict[str, int], split: str, fraction: float) -> str:
    """Returns the slice of the data set's own splits that forms one of our splits."""
    named = {split_named(key): key for key in sizes}
    if split in named and split != "train":
        return named[split]
    cut = [other for other in ("validate", "test") if other not in named]
    parts = ["train"] if cut == ["test"] else ["train", *cut]
    if "train" not in named or split not in parts:
        raise AbsentSplit(
            f"the data set {name!r} has no split for {split!r}; it has "
            f"{', '.join(sizes)}"
        )
    size = sizes[named["train"]]
    count = max(1, round(size * fraction))
    bounds = [0, *(size - count * k for k in reversed(range(len(parts))))]
    part = parts.index(split)
    return f"{named['train']}[{bounds[part]}:{bounds[part + 1]}]"
