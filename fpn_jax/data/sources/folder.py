"""Images in folders: one folder for each class, with or without folders of splits."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from fpn_jax.data.images import decode, reading
from fpn_jax.data.records import (
    SPLITS,
    AbsentSplit,
    BadRecord,
    Record,
    SourceInfo,
    printable,
)
from fpn_jax.errors import InputError, unknown, within

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
"""Suffixes of image files, in lower case; other files are skipped."""

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validate",
    "valid": "validate",
    "validate": "validate",
    "validation": "validate",
    "test": "test",
    "testing": "test",
}
"""Name of a folder, in lower case → its split."""


class FolderSource:
    """The images of one split of a folder, in the same order on every machine.

    There are two layouts: `root/Train/Cat/….jpg`, where the folders of the splits have
    any name of `SPLIT_FOLDERS` in any case, and `root/Cat/….jpg`, where every image
    belongs to the training split. A class may have subfolders; hidden files and folders
    are skipped. The classes are the names of the folders in the training split, sorted
    without regard to case; other splits may lack some of them but not add any.

    Without a folder for `validate`, the training files whose hash is below
    `validate_fraction` form that split. The hash depends on the path below the split,
    so adding files does not change the split of existing files.

    Args:
      root: The folder.
      split: `train`, `validate` or `test`.
      validate_fraction: Share of the training files, in (0, 1), that forms the
        validation split if it has no folder.
      background: Red, green and blue, 0 to 255, seen through transparent pixels.
      encoded: Whether JPEGs stay `decode.Encoded`, so that a crop decodes them.

    Attributes:
      info: Classes, named as on disk, and the field `label`.
      labels: The label of every record, without decoding it.

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
        folders = _split_folders(Path(root))
        folder = folders.get(split)
        # A test folder alone is enough to evaluate a model.
        train = folders.get("train", folder)
        if train is None:
            raise InputError(
                f"{root} has no folder 'train'; it has {_splits_of(folders)}, but the "
                "classes are those of 'train'"
            )
        classes = _classes(train)
        if folder is None and split == "test":
            raise AbsentSplit(
                f"{root} has no folder 'test'; it has {_splits_of(folders)}"
            )
        files = _labelled_files(folder or train, classes, strict=folder == train)
        if "validate" not in folders and split != "test":
            files = [
                (path, label)
                for path, label in files
                if (_fraction(path) < validate_fraction) == (split == "validate")
            ]
        if not files:
            raise InputError(
                f"split {split!r} is empty: {folder or train} has no image for it "
                f"(validate_fraction is {validate_fraction})"
            )
        self._paths = [os.path.join(folder or train, path) for path, _ in files]
        self.labels = tuple(label for _, label in files)
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


def is_image(name: str | os.PathLike) -> bool:
    """Returns whether a file is an image by its name, and not hidden."""
    path = Path(name)
    return not path.name.startswith(".") and path.suffix.lower() in EXTENSIONS


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _subfolders(folder: Path) -> list[Path]:
    """Returns the visible folders in a folder, in the order of their names."""
    return sorted(
        path
        for path in _listed(folder)
        if path.is_dir() and not path.name.startswith(".")
    )


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; without such folders the root is `train`."""
    if not root.exists():
        raise InputError(f"{root} does not exist; give a folder of images")
    if not root.is_dir():
        raise InputError(f"{root} is a file; give a folder of images")
    folders: dict[str, Path] = {}
    for folder in _subfolders(root):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in folders:
            raise InputError(
                f"{folders[split]} and {folder} are both folders of the split "
                f"{split!r}; keep one"
            )
        if split:
            folders[split] = folder
    if not folders:
        return {"train": root}
    return folders


def _splits_of(folders: dict[str, Path]) -> str:
    return ", ".join(f"{split} ({folder})" for split, folder in folders.items())


def _classes(train: Path) -> tuple[str, ...]:
    names = sorted((path.name for path in _subfolders(train)), key=str.lower)
    for name in names:
        # Class names are printed in tables and in the report.
        if printable(name) != name:
            raise InputError(
                f"the class folder {printable(name)} has characters that cannot be "
                "printed; rename it"
            )
    if len(names) < 2:
        raise InputError(
            f"{train} has {len(names)} class folders ({', '.join(names) or 'none'}); "
            "at least two are expected, such as 'cat' and 'dog'"
        )
    return tuple(names)


def _labelled_files(
    folder: Path, classes: tuple[str, ...], strict: bool
) -> list[tuple[str, int]]:
    """Returns `(path below folder, label)` of every image, sorted by code points."""
    label_of = {name: label for label, name in enumerate(classes)}
    files = []
    for class_folder in _subfolders(folder):
        name = class_folder.name
        if name not in label_of:
            raise InputError(
                f"label outside the classes: {class_folder} is not a class of the "
                f"training images; its classes are {', '.join(classes)}"
            )
        images = _images(class_folder)
        if strict and not images:
            raise InputError(
                f"{class_folder} has no images; files that end in "
                f"{' '.join(sorted(EXTENSIONS))} are expected there"
            )
        files += [(f"{name}/{image}", label_of[name]) for image in images]
    return sorted(files)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}")


def _images(folder: Path) -> list[str]:
    """Returns POSIX paths of the images at any depth below a folder."""
    images = []
    ancestors = {str(folder): frozenset({os.path.realpath(folder)})}
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        seen = ancestors.pop(parent)
        kept = []
        for name in folders:
            path = os.path.join(parent, name)
            real = os.path.realpath(path)
            # Following a link to one of its own parent folders would never end.
            if not name.startswith(".") and real not in seen:
                ancestors[path] = seen | {real}
                kept.append(name)
        folders[:] = kept
        images += [
            Path(parent, name).relative_to(folder).as_posix()
            for name in names
            if is_image(name)
        ]
    return images


def _fraction(path: str) -> float:
    """Returns a number in [0, 1) that depends on the path alone."""
    digest = hashlib.sha256(os.fsencode(path)).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
