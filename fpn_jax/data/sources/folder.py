"""Images in folders: one folder for each class, with or without folders of splits."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from fpn_jax.data import files
from fpn_jax.data.images import decode, reading
from fpn_jax.data.records import (
    SPLITS,
    AbsentSplit,
    BadRecord,
    Record,
    SourceInfo,
    printable,
)
from fpn_jax.data.sources import layout
from fpn_jax.errors import InputError, unknown, within


class FolderSource:
    """The images of one split of a folder, in the same order on every machine.

    There are two layouts: `root/Train/Cat/….jpg`, where `layout.split_named` knows the
    names of the splits, and `root/Cat/….jpg`, where every image belongs to the training
    split. Other folders are refused. `files.find_below` finds the images of a class, at
    any depth. The classes are the names of the folders in the training split, sorted
    without regard to case; other splits may lack some of them but not add any.

    Without a folder for `validate`, the training files whose hash is below
    `validate_fraction` form that split, but for one file of each class. The hash
    depends on the path below the split, so adding files does not change the split of
    existing files.

    Args:
      root: The folder.
      split: `train`, `validate` or `test`.
      validate_fraction: Share of the training files, in (0, 1), that forms the
        validation split if it has no folder.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.
      model_classes: Names of the classes of a model, of which the split may lack some;
        None takes the folders of the training split.

    Attributes:
      info: Classes, named as on disk, and the field `label`.
      labels: The label of every record, without decoding it.
      notes: Lines about image files that are not used.

    Raises:
      InputError: No folder is given, it has another layout, or the split has no image.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        *,
        validate_fraction: float = 0.1,
        background: tuple[int, int, int] = decode.WHITE,
        encoded: bool = False,
        model_classes: Sequence[str] | None = None,
    ):
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if not os.fspath(root):
            raise InputError(
                "data.root is empty; give the folder of the photographs, which holds "
                "Train/Validate/Test × Cat/Dog: --config.data.root=DIR"
            )
        within(
            "validate_fraction", validate_fraction, 0, 1, open_low=True, open_high=True
        )
        self._background, self._encoded = background, encoded
        folders = layout.split_folders(Path(root))
        folder = folders.get(split)
        # A test folder alone is enough to evaluate a model.
        train = folders.get("train", folder)
        if train is None:
            raise InputError(
                f"{root} has no folder 'train'; it has {layout.splits_of(folders)}, "
                "but the classes are those of 'train'"
            )
        strict = folder == train and model_classes is None
        classes = tuple(model_classes or layout.class_names(train))
        if folder is None and split == "test":
            raise AbsentSplit(
                f"{root} has no folder 'test'; it has {layout.splits_of(folders)}"
            )
        labelled, notes = _labelled_files(folder or train, classes, strict)
        if "validate" not in folders and split != "test":
            labelled = _hash_split(labelled, split, validate_fraction)
        if not labelled:
            raise InputError(
                f"split {split!r} is empty: {folder or train} has no image for it "
                f"(validate_fraction is {validate_fraction})"
                + "".join(f"; {note}" for note in notes)
            )
        self._paths = [os.path.join(folder or train, path) for path, _ in labelled]
        self.labels = tuple(label for _, label in labelled)
        self.notes = tuple(printable(note) for note in notes)
        self.info = SourceInfo(classes, ("label",))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        path = self._paths[index]
        try:
            data = reading.read_file(path)
            image = decode.open_encoded(data, background=self._background)
            if not self._encoded:
                image = decode.pixels(image)
        except ValueError as error:
            raise BadRecord(self.id(index), str(error)) from error
        return {"image": image, "label": self.labels[index]}

    def read_ahead(self, indices: Iterable[int]) -> None:
        """Starts to read the files of the records that this thread reads next."""
        reading.prefetch_files(self._paths[index] for index in indices)

    def id(self, index: int) -> str:
        """Returns the path of a record's file, which starts with `root` as given.

        Characters that cannot be printed, such as a newline, are escaped.
        """
        return printable(self._paths[index])


def _labelled_files(
    folder: Path, classes: tuple[str, ...], strict: bool
) -> tuple[list[tuple[str, int]], list[str]]:
    """Returns `(path below folder, label)` of every image, and notes on other files.

    The images are sorted by code points.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    labelled, notes = [], []
    for class_folder in files.subfolders(folder):
        name = class_folder.name
        found = files.find_below(class_folder)
        if not found.images and not found.unsupported and name not in label_of:
            continue
        layout.refuse_unknown_class(class_folder, classes)
        if found.unsupported:
            notes.append(
                f"{class_folder}: {len(found.unsupported)} image files are not used, "
                "because their format cannot be decoded: "
                f"{files.count_by_suffix(found.unsupported)}"
            )
        if strict and not found.images:
            raise InputError(
                f"{class_folder} has no images that can be decoded "
                f"({files.count_by_suffix(found.unsupported) or 'no image files'}); "
                f"files that end in {' '.join(sorted(files.DECODABLE))} are expected "
                "there"
            )
        labelled += [(f"{name}/{image}", label_of[name]) for image in found.images]
    return sorted(labelled), notes


def _hash_split(
    labelled: list[tuple[str, int]], split: str, fraction: float
) -> list[tuple[str, int]]:
    """Returns the files of `train` or `validate`, chosen by the hash of their paths.

    The file of a class with the greatest hash stays in `train`, so that every class has
    one there.
    """
    last: dict[int, str] = {}
    for path, label in labelled:
        if label not in last or layout.hash_fraction(path) > layout.hash_fraction(
            last[label]
        ):
            last[label] = path
    return [
        (path, label)
        for path, label in labelled
        if (layout.hash_fraction(path) < fraction and path != last[label])
        == (split == "validate")
    ]
