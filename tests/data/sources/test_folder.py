import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpn_jax.data import check
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources import layout
from fpn_jax.data.sources.folder import FolderSource
from fpn_jax.data.sources.layout import hash_fraction
from fpn_jax.errors import InputError
from fpn_jax.modes.train import _notes

PHOTOGRAPHS = Path(__file__).resolve().parents[4] / "shared" / "data" / "cats_dogs"


def write(root: Path, *names: str) -> Path:
    """Writes a small image, of a colour made from its name, for every name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = (len(name), sum(name.encode()) % 256, 0)
        Image.new("RGB", (6, 4), color).save(path, "PNG")
    return root


def names_of(source: FolderSource, root: Path) -> list[str]:
    return [
        Path(source.id(index)).relative_to(root).as_posix()
        for index in range(len(source))
    ]


def test_records_labels_and_order(tmp_path):
    root = write(
        tmp_path,
        "Train/Dog/b.png",
        "Train/Cat/b.JPG",
        "Train/Cat/a.jpeg",
        "Train/Cat/deep/er/c.WebP",
        "Train/Cat/deep.png",
        "Train/Cat/B.tiff",
        "Train/Dog/a.gif",
        "Validate/Dog/z.bmp",
    )
    source = FolderSource(root, "train")
    assert source.info.classes == ("Cat", "Dog")
    assert names_of(source, root / "Train") == [
        "Cat/B.tiff",
        "Cat/a.jpeg",
        "Cat/b.JPG",
        "Cat/deep.png",
        "Cat/deep/er/c.WebP",
        "Dog/a.gif",
        "Dog/b.png",
    ]
    assert source.labels == (0, 0, 0, 0, 0, 1, 1)
    record = source[6]
    assert record["label"] == 1
    assert record["image"].shape == (4, 6, 3)
    assert record["image"][0, 0].tolist() == [
        len("Train/Dog/b.png"),
        sum(b"Train/Dog/b.png") % 256,
        0,
    ]
    # A split may lack a class; its labels stay those of Train.
    assert FolderSource(root, "validate").labels == (1,)
    assert FolderSource(root, "validate").info.classes == ("Cat", "Dog")


def test_classes_are_sorted_without_regard_to_case(tmp_path):
    root = write(tmp_path, "train/dog/1.png", "train/Zebra/1.png", "train/Cat/1.png")
    for number in range(30):
        write(tmp_path, f"train/Cat/{number}.png")
    assert FolderSource(root, "train").info.classes == ("Cat", "dog", "Zebra")


@pytest.mark.parametrize("validate", ["val", "VALID", "validation", "Validate"])
@pytest.mark.parametrize("train", ["TRAIN", "training"])
def test_names_of_splits(tmp_path, train, validate):
    root = write(
        tmp_path,
        *(f"{train}/{name}/1.png" for name in ("cat", "dog")),
        f"{validate}/cat/2.png",
        "Testing/dog/3.png",
        ".cache/x/1.png",
    )
    lengths = [
        len(FolderSource(root, split)) for split in ("train", "validate", "test")
    ]
    assert lengths == [2, 1, 1]


def test_hidden_files_and_other_endings_are_skipped(tmp_path):
    root = write(tmp_path, *(f"Train/{name}/1.png" for name in ("cat", "dog")))
    write(root, "Val/cat/1.png", "Train/cat/._1.png", "Train/cat/.x/1.png")
    (root / "Train/cat/Thumbs.db").write_bytes(b"x")
    (root / "Train/readme.txt").write_text("x")
    assert len(FolderSource(root, "train")) == 2


@pytest.mark.parametrize("below", ["", "Train/"])
def test_validate_is_split_off_by_hash(tmp_path, below):
    names = [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(100)]
    root = write(tmp_path, *(below + name for name in names))
    base = root / below
    train, validate = FolderSource(root, "train"), FolderSource(root, "validate")
    in_train, in_validate = names_of(train, base), names_of(validate, base)
    assert sorted(in_train + in_validate) == sorted(names)
    assert 8 <= len(validate) <= 34
    assert set(validate.labels) == {0, 1}
    assert not set(in_validate) - set(
        names_of(FolderSource(root, "validate", validate_fraction=0.3), base)
    )

    write(root, *(f"{below}cat/new{k}.png" for k in range(20)))
    assert set(in_train) <= set(names_of(FolderSource(root, "train"), base))
    assert set(in_validate) <= set(names_of(FolderSource(root, "validate"), base))
    with pytest.raises(InputError, match=r"no folder 'test'; it has train \(.*\)"):
        FolderSource(root, "test")


def test_the_hash_is_the_same_in_every_process(tmp_path):
    root = write(tmp_path, *(f"{c}/{k}.png" for c in ("cat", "dog") for k in range(9)))
    source = FolderSource(root, "validate", validate_fraction=0.15)
    assert names_of(source, root) == [
        "cat/0.png",
        "cat/7.png",
        "cat/8.png",
        "dog/5.png",
        "dog/7.png",
        "dog/8.png",
    ]


def test_a_test_folder_is_complete_without_a_validation_folder(tmp_path):
    names = [f"test/{name}/{k}.png" for name in ("cat", "dog") for k in range(30)]
    root = write(tmp_path, *names, *(name.replace("test", "train") for name in names))
    assert len(FolderSource(root, "test")) == 60
    both = [FolderSource(root, split) for split in ("train", "validate")]
    assert sum(map(len, both)) == 60
    assert all(map(len, both))


def test_mistakes_are_named(tmp_path):
    def refused(message, root=tmp_path, split="train", **options):
        with pytest.raises(InputError, match=message):
            FolderSource(root, split, **options)

    refused("does not exist", tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    refused("is a file", tmp_path / "file")
    refused("has 0 class folders")
    write(tmp_path, "Train/cat/1.png")
    refused(r"Train has 1 class folders \(cat\)")
    (tmp_path / "Train/dog").mkdir()
    refused(r"dog has no images that can be decoded \(no image files\); files that end")
    write(tmp_path, "Train/dog/1.png", "Val/wolf/1.png")
    refused("label outside the classes: .*wolf", split="validate")
    refused("split 'dev' is unknown", split="dev")
    refused("validate_fraction is 0;", validate_fraction=0)
    refused("no folder 'test'; it has train .*validate", split="test")
    (tmp_path / "Test/cat").mkdir(parents=True)
    refused("split 'test' is empty: .*Test has no image", split="test")
    write(tmp_path, "valid/cat/1.png")
    refused("Val and .*valid are both folders of the split 'validate'")


def test_a_root_without_train(tmp_path):
    write(tmp_path, "Test/cat/1.png", "Test/dog/1.png")
    with pytest.raises(InputError, match="no folder 'train'; it has test"):
        FolderSource(tmp_path, "train")
    # Held-out photographs alone are enough for an evaluation.
    assert FolderSource(tmp_path, "test").info.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_set", "train"),
        ("Train-Set", "train"),
        ("images_train", "train"),
        ("trainval", "train"),
        ("TRAIN2017", "train"),
        ("val_images", "validate"),
        ("validation_data", "validate"),
        ("eval", "validate"),
        ("dev", "validate"),
        ("test set", "test"),
        ("holdout", "test"),
        ("cats", None),
        ("set", None),
        ("trainer", None),
        ("2017", None),
    ],
)
def test_names_that_mean_a_split(name, split):
    assert layout.split_named(name) == split


def test_a_folder_that_repeats_its_split_is_opened(tmp_path):
    """The layout of archives such as `training_set/training_set/cats`."""
    outer = ("training_set", "test_set")
    names = [
        f"{s}/{s}/{c}/{k}.png" for s in outer for c in ("cats", "dogs") for k in "1"
    ]
    root = write(tmp_path, *names)
    assert FolderSource(root, "train").info.classes == ("cats", "dogs")
    assert names_of(FolderSource(root, "test"), root / "test_set/test_set") == [
        "cats/1.png",
        "dogs/1.png",
    ]


def refusal(root: Path, split: str = "train", **options) -> str:
    with pytest.raises(InputError) as caught:
        FolderSource(root, split, **options)
    return str(caught.value)


def test_folders_that_are_not_understood_are_refused_by_name(tmp_path):
    root = write(tmp_path / "a", "train/cat/1.png", "train/dog/1.png", "more/cat/1.png")
    assert "has folders of splits (train" in refusal(root)
    assert "'more', which is no split" in refusal(root)
    root = write(tmp_path / "b", "Cat/train/1.png", "Cat/val/2.png", "Dog/train/1.png")
    assert "has folders of splits inside of a class (train, val)" in refusal(root)
    root = write(tmp_path / "c", "train/train/1.png", "train/test/1.png")
    assert "looks like a split inside of the split 'train'" in refusal(root)
    root = write(tmp_path / "d", "PetImages/Cat/1.png", "PetImages/Dog/1.png")
    assert f"contains Cat, Dog: give data.root={root}/PetImages" in refusal(root)


@pytest.mark.parametrize(
    "junk",
    [
        "__MACOSX",
        "@eaDir",
        ".ipynb_checkpoints",
        "Thumbs",
        "$RECYCLE.BIN",
        "lost+found",
    ],
)
def test_folders_that_tools_leave_behind_are_neither_classes_nor_data(tmp_path, junk):
    root = write(tmp_path, "cat/1.png", "dog/1.png", f"{junk}/cat/2.png")
    write(root, f"cat/{junk}/3.png", f"dog/{junk}/dog/4.png", "dog/._1.png")
    source = FolderSource(root, "train", validate_fraction=1e-9)
    assert source.info.classes == ("cat", "dog")
    assert names_of(source, root) == ["cat/1.png", "dog/1.png"]


@pytest.mark.parametrize("fraction", [0.1, 0.999])
def test_the_automatic_split_leaves_every_class_a_training_image(tmp_path, fraction):
    names = [f"cat/{k}.png" for k in range(40)]
    # The hashes of all of these lie below 0.1, in the validation split.
    low = [f"dog/{k}.png" for k in range(200) if hash_fraction(f"dog/{k}.png") < 0.1][
        :3
    ]
    root = write(tmp_path, *names, *low)
    train = FolderSource(root, "train", validate_fraction=fraction)
    validate = FolderSource(root, "validate", validate_fraction=fraction)
    assert set(train.labels) == {0, 1}
    both = names_of(train, root) + names_of(validate, root)
    assert sorted(both) == sorted([*names, *low])
    assert train.labels.count(1) == 1


def test_a_class_without_validation_images_is_named_when_training_begins(tmp_path):
    root = write(tmp_path, *(f"cat/{k}.png" for k in range(40)), "dog/1.png")
    train, validate = FolderSource(root, "train"), FolderSource(root, "validate")
    (note,) = _notes(train, validate)
    assert note.startswith("the validation split has no image of 'dog'")
    assert _notes(train, train) == []


def test_the_classes_of_a_model_may_be_missing_from_held_out_data(tmp_path):
    root = write(tmp_path, "Test/Cat/1.png", "Test/empty/notes.txt")
    classes = ("Cat", "Dog")
    source = FolderSource(root, "test", model_classes=classes)
    assert (source.info.classes, source.labels) == (classes, (0,))
    write(root, "Test/Wolf/1.png")
    assert "Wolf is not one of the classes 'Cat', 'Dog'" in refusal(
        root, "test", model_classes=classes
    )


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("Dog", "Dog ", "spaces or invisible characters"),
        ("Dog", "D\u200bog", "spaces or invisible characters"),
        ("Dog", "dog", "letter case"),
        ("Caf\u00e9", "Cafe\u0301", "the Unicode form"),
    ],
)
def test_names_that_look_the_same_are_explained(tmp_path, first, second, why):
    root = write(tmp_path / "a", f"{first}/1.png", f"{second}/1.png")
    said = refusal(root)
    if second.isprintable():
        assert f"differ only in {why}" in said
        assert ascii(second) in said
    root = write(tmp_path / "b", f"Train/{first}/1.png", "Train/Cat/1.png")
    said = refusal(write(root, f"Val/{second}/1.png"), "validate")
    assert f"{second!a} and {first!a} differ only in {why}" in said


def test_image_files_that_cannot_be_decoded_are_counted_by_folder(tmp_path):
    root = write(tmp_path, "Train/Cat/1.jfif", "Train/Cat/2.AVIF", "Train/Dog/3.mpo")
    write(root, "Train/Cat/4.heic", "Train/Cat/deep/5.HEIC", "Train/Cat/6.cr2")
    write(root, "Train/Dog/notes.txt", "Val/Cat/1.png")
    source = FolderSource(root, "train")
    assert len(source) == 3
    (note,) = source.notes
    assert note.startswith(f"{root}/Train/Cat: 3 image files are not used")
    assert note.endswith(".heic 2, .cr2 1")
    found = check.check(FolderSource(root, "train"))
    assert not found.passed
    assert note in found.text()
    assert (
        "other image files are not used (good by class: Cat 2, Dog 1)" in found.text()
    )
    root = write(tmp_path / "only", "Train/Cat/1.heic", "Train/Dog/1.png")
    assert "Cat has no images that can be decoded (.heic 1)" in refusal(root)


def test_links_are_followed_but_not_without_end(tmp_path):
    root = write(
        tmp_path / "root", "train/cat/1.png", "train/dog/1.png", "val/cat/1.png"
    )
    write(tmp_path / "elsewhere", "2.png", "sub/3.png")
    (root / "train/cat/link").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/loop").symlink_to(root / "train/cat")
    (tmp_path / "elsewhere/sub/back").symlink_to(tmp_path / "elsewhere")
    (root / "train/dog/broken").symlink_to(tmp_path / "nothing")
    assert names_of(FolderSource(root, "train"), root / "train") == [
        "cat/1.png",
        "cat/link/2.png",
        "cat/link/sub/3.png",
        "dog/1.png",
    ]


def test_bad_records_are_named(tmp_path):
    root = write(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    source = FolderSource(root, "train")
    path = root / "train/dog/1.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadRecord, match="PNG data is damaged") as caught:
        source[1]
    assert caught.value.id == str(path) == source.id(1)
    path.unlink()
    with pytest.raises(BadRecord, match="No such file"):
        source[1]
    with pytest.raises(IndexError):
        source[2]
    assert source[0]["label"] == 0


def test_background_reaches_the_decoder(tmp_path):
    root = write(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    Image.new("RGBA", (3, 3), (0, 0, 0, 0)).save(root / "train/cat/1.png")
    source = FolderSource(root, "train", background=(7, 8, 9))
    assert source[0]["image"][1, 1].tolist() == [7, 8, 9]


def test_pickles_and_threads(tmp_path):
    names = [f"{c}/{k}.png" for c in ("cat", "dog") for k in range(20)]
    source = FolderSource(write(tmp_path, *names), "train")
    twin = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(source.__getitem__, range(len(source))))
    for index, record in enumerate(records):
        np.testing.assert_array_equal(record["image"], twin[index]["image"])
        assert record["label"] == twin[index]["label"]


def test_relative_roots_stay_relative(tmp_path, monkeypatch):
    write(
        tmp_path, "pets/train/cat/1.png", "pets/train/dog/1.png", "pets/val/cat/1.png"
    )
    monkeypatch.chdir(tmp_path)
    path = os.path.join("pets", "train", "cat", "1.png")
    assert FolderSource("pets", "train").id(0) == path


def test_photographs():
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the folder of photographs is not there")
    source = FolderSource(PHOTOGRAPHS, "validate")
    assert source.info.classes == ("Cat", "Dog")
    assert set(source.labels) == {0, 1}
    for index in range(0, len(source), 100):
        record = source[index]
        assert record["image"].ndim == 3
        assert source.info.classes[record["label"]] in source.id(index)
