"""Which folders are splits and which are classes, and what cannot be understood."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from fpn_jax.data import files
from fpn_jax.data.records import printable
from fpn_jax.errors import InputError

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validate", "validation", "validating", "dev", "development"),
        "validate",
    ),
    **dict.fromkeys(("eval", "evaluate", "evaluation"), "validate"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
}

_AROUND = re.compile(r"^(?:images?|imgs?|data)|(?:images?|imgs?|data|sets?|split)$")
"""Words around the name of a split, as in `training_set` and `images_val`."""

WANTED = "Train/Cat, Train/Dog, Validate/Cat, … or Cat, Dog"
"""The layouts that are understood, for error messages."""


def split_named(name: str) -> str | None:
    """Returns the split that a folder's name means, or None.

    Letter case, spaces, `-`, `_`, words such as `set` or `images`, and a year are
    ignored.

    Args:
      name: Name of a folder, or of a split of a data set.

    Example:
      >>> [split_named(name) for name in ("training_set", "Val", "test2017", "cats")]
      ['train', 'validate', 'test', None]
    """
    plain = re.sub(r"(?:19|20)\d\d$", "", re.sub(r"[\s_.-]+", "", name.lower()))
    while (shorter := _AROUND.sub("", plain)) not in ("", plain):
        plain = shorter
    return _SPLIT_NAMES.get(plain)


def hash_fraction(name: str) -> float:
    """Returns a number in [0, 1) that depends on the name alone.

    Args:
      name: Name or path of a file, relative to the data.
    """
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split; without such folders the root is `train`.

    Args:
      root: The folder of the data.

    Raises:
      InputError: The root is no folder, or its folders cannot be understood.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist; give a folder of images")
    if not root.is_dir():
        raise InputError(f"{root} is a file; give a folder of images")
    folders: dict[str, Path] = {}
    others = []
    for folder in files.subfolders(root):
        split = split_named(folder.name)
        if split is None:
            others.append(folder)
        elif split in folders:
            raise InputError(
                f"{folders[split]} and {folder} are both folders of the split "
                f"{split!r}; keep one"
            )
        else:
            folders[split] = folder
    if not folders:
        _refuse_splits_inside(others)
        _refuse_wrapper(root, others)
        return {"train": root}
    unknown = [folder for folder in others if files.holds_images(folder)]
    if unknown:
        raise InputError(
            f"{root} has folders of splits ({splits_of(folders)}) and also "
            f"{_quoted(folder.name for folder in unknown)}, which is no split that is "
            "known: name it train, validate or test, or move it out of the folder"
        )
    return {split: _unwrapped(folder, split) for split, folder in folders.items()}


def splits_of(folders: dict[str, Path]) -> str:
    """Returns the splits and their folders as text."""
    return ", ".join(f"{split} ({folder})" for split, folder in folders.items())


def _unwrapped(folder: Path, split: str) -> Path:
    """Returns the folder of the classes, below folders that hold only one folder."""
    inner = files.subfolders(folder)
    # Archives repeat the folder: training_set/training_set/cats.
    while len(inner) == 1 and split_named(inner[0].name) == split:
        folder = inner[0]
        inner = files.subfolders(folder)
    for path in inner:
        if split_named(path.name) is not None and files.holds_images(path):
            raise InputError(
                f"{path} looks like a split inside of the split {split!r}; the folders "
                f"of classes are expected there: {WANTED}"
            )
    return folder


def _refuse_splits_inside(classes: Sequence[Path]) -> None:
    """Refuses folders of splits inside of the folders of classes."""
    for folder in classes:
        inside = [
            path.name
            for path in files.subfolders(folder)
            if split_named(path.name) is not None and files.holds_images(path)
        ]
        if inside:
            raise InputError(
                f"{folder} has folders of splits inside of a class "
                f"({', '.join(inside)}); splits must contain the classes: {WANTED}"
            )


def _refuse_wrapper(root: Path, others: Sequence[Path]) -> None:
    """Refuses a root with one folder that contains the data, and names that folder."""
    if len(others) == 1 and len(files.subfolders(others[0])) > 1:
        inside = ", ".join(path.name for path in files.subfolders(others[0])[:4])
        raise InputError(
            f"{root} has only the folder {others[0].name}, which contains {inside}: "
            f"give data.root={others[0]}"
        )


def class_names(train: Path) -> tuple[str, ...]:
    """Returns the names of the classes, sorted without regard to letter case.

    Args:
      train: The folder that contains a folder for each class.

    Raises:
      InputError: There are fewer than two, or names that cannot be told apart.
    """
    names = sorted((path.name for path in files.subfolders(train)), key=str.lower)
    for name in names:
        # Class names are printed in tables and in the report.
        if printable(name) != name:
            raise InputError(
                f"the class folder {printable(name)} has characters that cannot be "
                "printed; rename it"
            )
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_plain(name), name)
        if other != name:
            raise InputError(
                f"the class folders {other!a} and {name!a} in {train} differ only "
                f"in {difference(other, name)}; rename or join them"
            )
    if len(names) < 2:
        raise InputError(
            f"{train} has {len(names)} class folders ({', '.join(names) or 'none'}); "
            "at least two are expected, such as 'cat' and 'dog'"
        )
    return tuple(names)


def refuse_unknown_class(folder: Path, classes: Sequence[str]) -> None:
    """Refuses a folder that is not one of the classes, and names a similar one.

    Args:
      folder: A folder of a split.
      classes: Names of the classes.

    Raises:
      InputError: The folder's name is no class.
    """
    name = folder.name
    if name in classes:
        return
    similar = next((one for one in classes if difference(name, one)), None)
    hint = ""
    if similar is not None:
        hint = (
            f"; {name!a} and {similar!a} differ only in {difference(name, similar)}: "
            "rename one of them"
        )
    raise InputError(
        f"label outside the classes: {folder} is not one of the classes "
        f"{_quoted(classes)}{hint}"
    )


def difference(first: str, second: str) -> str | None:
    """Returns in what two names differ that look the same, or None.

    Args:
      first: A name.
      second: Another name.

    Example:
      >>> difference("Dog", "Dog "), difference("Dog", "dog"), difference("Dog", "Cat")
      ('spaces or invisible characters', 'letter case', None)
    """
    if first == second or _plain(first) != _plain(second):
        return None
    if first.casefold() == second.casefold():
        return "letter case"
    one, two = (unicodedata.normalize("NFKC", name) for name in (first, second))
    return "the Unicode form" if one == two else "spaces or invisible characters"


_INVISIBLE = frozenset({"Zs", "Cf", "Cc"})
"""Unicode categories of spaces and of characters without a shape."""


def _plain(name: str) -> str:
    """Returns what is visible of a name, in one letter case and Unicode form."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if unicodedata.category(c) not in _INVISIBLE)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
