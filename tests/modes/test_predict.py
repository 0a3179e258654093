import csv
import io
import json
import os
import types

import jax.numpy as jnp
import pytest
from PIL import Image

from fpn_jax.data.crops import ResizeAndCenterCrop
from fpn_jax.data.records import SourceInfo
from fpn_jax.errors import InputError
from fpn_jax.modes import Options, predict
from fpn_jax.predictor import Predictor
from fpn_jax.views import VIEWS


@pytest.fixture
def predictor(monkeypatch):
    """Replaces every loaded model by one that returns the brightness of an image."""

    def answer(images):
        white = images.astype(jnp.float32).mean(axis=(1, 2, 3)) / 255
        probabilities = jnp.stack([1 - white, white], axis=1)
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    made = Predictor(
        answer,
        ResizeAndCenterCrop(4, crop_fraction=0.5),
        SourceInfo(classes=("black", "white"), fields=("label",)),
        VIEWS["classes"],
        image_size=(4, 4),
    )
    trained = types.SimpleNamespace(predictor=lambda: made)
    monkeypatch.setattr(predict, "load", lambda workdir, checkpoint: trained)
    return made


NAMES = (b"a.png", b"not utf-8 \xff.png", b'two\nlines, "quoted".png', b"--x.png")


@pytest.fixture
def folder(tmp_path):
    for grey, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (8, 8), (85 * grey,) * 3).save(file, "png")
    (tmp_path / "broken.png").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("output", [None, "out.csv", "out.json"])
@pytest.mark.usefixtures("predictor")
def test_predict_works_with_any_file_name(folder, tmp_path, capfdbinary, output):
    given = None if output is None else str(tmp_path / output)
    options = Options(workdir="any", input=(str(folder),), output=given)
    assert predict.run(options) == 1
    said = capfdbinary.readouterr().out
    content = said if output is None else (tmp_path / output).read_bytes()
    text = os.fsdecode(content)
    if output == "out.json":
        rows = json.loads(text)
    else:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    by_name = {os.path.basename(os.fsencode(row["path"])): row for row in rows}
    assert set(by_name) == {*NAMES, b"broken.png"}
    for grey, name in enumerate(NAMES):
        assert float(by_name[name]["probability_white"]) == pytest.approx(grey / 3)
    assert "none of JPEG" in by_name[b"broken.png"]["error"]


@pytest.mark.usefixtures("predictor")
def test_output_folder_gets_pictures_and_a_table(folder, tmp_path):
    (folder / "deeper").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "deeper" / "a.png")
    output = tmp_path / "drawn"
    options = Options(workdir="any", input=(str(folder),), output=f"{output}/")
    assert predict.run(options) == 1
    pictures = {path.name for path in output.glob("*.png")}
    assert {"a.png", "a_2.png", "--x.png"} <= pictures
    assert len(pictures) == len(NAMES) + 1
    rows = (output / "predictions.csv").read_bytes().splitlines()
    assert rows[0] == b"path,class,probability_black,probability_white,error"


@pytest.mark.usefixtures("predictor")
def test_no_drawing_replaces_an_input(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match="is the folder of an input image"):
        predict.run(Options(workdir="any", input=(str(folder),), output=str(folder)))
    with pytest.raises(InputError, match="--output is empty"):
        predict.run(Options(workdir="any", input=(str(folder),), output=""))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "missing.csv/"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    predictor, tmp_path, monkeypatch, name
):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "missing.csv").write_text("a file")
    monkeypatch.setattr(
        predict, "load", lambda *_: pytest.fail("the model was loaded first")
    )
    options = Options(
        workdir="w", input=(str(tmp_path / "a.png"),), output=f"{tmp_path}/{name}"
    )
    if name.endswith("/"):
        monkeypatch.undo()
    with pytest.raises((OSError, InputError)):
        predict.run(options)
