import io
import itertools
import json
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image

from fpn_jax.data.images import reading
from fpn_jax.data.records import BadRecord
from fpn_jax.data.sources.tfds import TfdsSource
from fpn_jax.data.sources.tfds import __main__ as command
from fpn_jax.data.sources.tfds.__main__ import main
from fpn_jax.errors import InputError


def encoded(kind: str, number: int, mode: str = "RGB") -> io.BytesIO:
    """Returns an image whose width is 8 more than the number."""
    color = (number, 100, 200) if mode == "RGB" else 1
    buffer = io.BytesIO()
    Image.new(mode, (8 + number, 6), color).save(buffer, kind)
    buffer.seek(0)
    return buffer


class Pictures:
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(size) for split, size in self.sizes.items()
        }

    def _generate_examples(self, size):
        for number in range(size):
            image = encoded("JPEG", number)
            if number == self.truncated:
                image = io.BytesIO(image.getvalue()[:-20])
            yield str(number), {"image": image, "label": number % 2, "name": "x"}

    truncated = None


class TrainOnly(Pictures, tfds.core.GeneratorBasedBuilder):
    sizes = {"train": 40}  # noqa: RUF012


class TrainAndTest(Pictures, tfds.core.GeneratorBasedBuilder):
    sizes = {"train": 20, "test": 5}  # noqa: RUF012
    truncated = 3


class TrainAndValidation(Pictures, tfds.core.GeneratorBasedBuilder):
    sizes = {"train": 6, "validation": 4}  # noqa: RUF012


def prepare(name, data_dir):
    tfds.builder(name, data_dir=data_dir).download_and_prepare(
        file_format="array_record"
    )
    return data_dir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("train_only", "train_and_test", "train_and_validation"):
        prepare(name, folder)
    return folder


def widths(source) -> list[int]:
    return sorted(source[index]["image"].shape[1] for index in range(len(source)))


def test_train_only_is_cut_in_three(data_dir):
    parts = [
        TfdsSource(split, data_dir, dataset="train_only")
        for split in ("train", "validate", "test")
    ]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert sorted(itertools.chain(*map(widths, parts))) == [8 + n for n in range(40)]
    ids = [part.id(1) for part in parts]
    assert ids == [
        "train_only:train[0:32]:1",
        "train_only:train[32:36]:1",
        "train_only:train[36:40]:1",
    ]
    source = TfdsSource("test", data_dir, dataset="train_only", validate_fraction=0.25)
    assert len(source) == 10


def test_records(data_dir):
    source = TfdsSource("train", data_dir, dataset="train_only")
    assert source.info.classes == ("cat", "dog")
    for index in range(len(source)):
        record = source[index]
        height, width, _ = record["image"].shape
        assert height == 6
        assert record["image"].dtype == np.uint8
        assert record["label"] == (width - 8) % 2
        assert np.abs(record["image"] - np.array([width - 8, 100, 200])).max() <= 4
    with pytest.raises(IndexError):
        source[len(source)]


def test_validate_is_cut_off_where_only_test_is_there(data_dir):
    lengths = {
        split: len(TfdsSource(split, data_dir, dataset="train_and_test"))
        for split in ("train", "validate", "test")
    }
    assert lengths == {"train": 18, "validate": 2, "test": 5}


def test_test_is_not_made_up_where_only_validation_is_there(data_dir):
    def length(split):
        return len(TfdsSource(split, data_dir, dataset="train_and_validation"))

    assert length("train") == 6
    assert length("validate") == 4
    with pytest.raises(InputError, match="no split for 'test'; it has train, valid"):
        length("test")


def test_bad_records_are_named(data_dir):
    source = TfdsSource("test", data_dir, dataset="train_and_test")
    reasons = {}
    for index in range(len(source)):
        try:
            source[index]
        except BadRecord as error:
            reasons[error.id] = error.reason
    [(name, reason)] = reasons.items()
    assert name.startswith("train_and_test:test:")
    assert "truncated" in reason


def test_a_record_that_does_not_come_is_given_up(data_dir, monkeypatch):
    class Stalling:
        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            if index == 2:
                answers.wait()
            return self.data[index]

    monkeypatch.setattr(reading, "READ_SECONDS", 0.3)
    answers = threading.Event()
    source = TfdsSource("train", data_dir, dataset="train_only")
    labels = [source[index]["label"] for index in range(4)]
    source._data = Stalling(source._data)
    try:
        source.read_ahead(range(4))
        assert source[1]["label"] == labels[1]
        with pytest.raises(BadRecord, match=r":2: it could not be read within 0\.3 s"):
            source[2]
        assert source[3]["label"] == labels[3]
    finally:
        answers.set()


def test_flipped_bits_of_the_storage_are_noticed(tmp_path):
    prepare("train_and_validation", tmp_path)
    [file] = tmp_path.rglob("*train.array_record*")
    content = bytearray(file.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start + 100] ^= 1
    file.write_bytes(content)
    source = TfdsSource("train", tmp_path, dataset="train_and_validation")
    with pytest.raises(BadRecord, match="train_and_validation:train"):
        [source[index] for index in range(len(source))]


def test_pickles(data_dir):
    source = TfdsSource("validate", data_dir, dataset="train_only")
    twin = pickle.loads(pickle.dumps(source))
    for index in range(len(source)):
        np.testing.assert_array_equal(source[index]["image"], twin[index]["image"])


def test_of_the_pets_the_label_is_the_species(tmp_path, monkeypatch):
    builder = tfds.builder("oxford_iiit_pet", data_dir=tmp_path)

    def examples(size):
        for number in range(size):
            yield (
                str(number),
                {
                    "image": encoded("JPEG", number),
                    "label": 30 - number,
                    "species": number % 2,
                    "file_name": str(number),
                    "segmentation_mask": encoded("PNG", number, "L"),
                    "head_bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                },
            )

    monkeypatch.setattr(
        type(builder),
        "_split_generators",
        lambda self, manager: {"train": examples(20), "test": examples(5)},
    )
    builder.download_and_prepare(file_format="array_record")
    source = TfdsSource("train", tmp_path, dataset="oxford_iiit_pet")
    assert source.info.classes == ("Cat", "Dog")
    assert len(source) == 18
    for index in range(len(source)):
        record = source[index]
        assert record["label"] == record["image"].shape[1] % 2
    breeds = TfdsSource("test", tmp_path, dataset="oxford_iiit_pet", label_key="label")
    assert len(breeds.info.classes) == 37
    assert breeds[0]["label"] == 30 - (breeds[0]["image"].shape[1] - 8)


def test_mistakes_are_named(data_dir, tmp_path):
    def refused(message, name="train_only", split="train", **options):
        with pytest.raises(InputError, match=message):
            TfdsSource(split, **{"root": data_dir, "dataset": name, **options})

    refused("no data set 'cat_vs_dogs'; names close to it: cats_vs_dogs", "cat_vs_dogs")
    refused("no data set 'qqqqqqqq'; names close to it: none", "qqqqqqqq")
    refused("split 'dev' is unknown", split="dev")
    refused("image feature of train_only 'picture' is unknown", image_key="picture")
    refused("label feature of train_only 'name' is unknown", label_key="name")
    refused("validate_fraction is 0.5; it must", validate_fraction=0.5)
    refused(
        r'not prepared in .*; run pip install -e "\.\[tf\]" && python -m '
        rf"fpn_jax\.data\.sources\.tfds cats_vs_dogs --data_dir={tmp_path}$",
        "cats_vs_dogs",
        root=tmp_path,
    )


def test_storage_without_random_access_is_named(tmp_path):
    prepare("train_and_validation", tmp_path)
    [path] = tmp_path.rglob("dataset_info.json")
    info = json.loads(path.read_text())
    info["fileFormat"] = "tfrecord"
    path.write_text(json.dumps(info))
    with pytest.raises(
        InputError, match="is prepared as tfrecord, which has no random"
    ):
        TfdsSource("train", tmp_path, dataset="train_and_validation")


@pytest.fixture
def tensorflow(monkeypatch):
    """Returns a function that makes TensorFlow look installed or not."""
    find_spec = command.importlib.util.find_spec

    def look_installed(installed):
        monkeypatch.setattr(
            command.importlib.util,
            "find_spec",
            lambda name, *rest: (
                (object() if installed else None)
                if name == "tensorflow"
                else find_spec(name, *rest)
            ),
        )

    return look_installed


def test_main_prepares(tmp_path, tensorflow, capsys):
    tensorflow(True)
    assert main(["train_and_validation", f"--data_dir={tmp_path}"]) == 0
    assert f"prepared in {tmp_path}" in capsys.readouterr().out
    assert main(["train_and_validation", f"--data_dir={tmp_path}"]) == 0
    assert len(TfdsSource("train", tmp_path, dataset="train_and_validation")) == 6


def test_main_without_tensorflow(tmp_path, tensorflow, capsys):
    tensorflow(False)
    assert main(["cats_vs_dogs", f"--data_dir={tmp_path}"]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 2
    assert 'pip install -e ".[tf]"' in message


def test_main_without_network(tmp_path, tensorflow, capsys, monkeypatch):
    def download_and_prepare(self, **options):
        raise requests.exceptions.ConnectionError("no route")

    tensorflow(True)
    monkeypatch.setattr(TrainOnly, "download_and_prepare", download_and_prepare)
    assert main(["train_only", f"--data_dir={tmp_path}"]) == 2
    assert "is there a network? (no route)" in capsys.readouterr().err


def test_main_with_an_unknown_name(tensorflow, capsys):
    tensorflow(True)
    assert main(["cats_and_dogs"]) == 2
    assert "cats_vs_dogs" in capsys.readouterr().err


def test_importing_is_light():
    code = (
        "import sys, fpn_jax.data.sources.tfds, fpn_jax.data.sources.folder, "
        "fpn_jax.data.check; "
        "print({'jax', 'flax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
