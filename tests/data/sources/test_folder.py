import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.folder import FolderSource
from fpn_jax.errors import InputError

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
        "notes/read.png",
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
    refused(r"dog has no images; files that end in \.bmp")
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
