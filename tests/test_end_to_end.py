"""Trains a model, then evaluates, predicts, exports and resumes."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError
from fpn_jax.modes import Options, evaluate, export, predict
from fpn_jax.train import writers
from fpn_jax.trained import load
from tests.conftest import train


@pytest.fixture(scope="module")
def trained(first_run):
    return load(str(first_run), "best")


@pytest.fixture
def photographs(tmp_path):
    source = DrawnSource("test", 48, test_records=5)
    folder = tmp_path / "photo's and more"
    folder.mkdir()
    for index in range(5):
        bgr = source[index]["image"][..., ::-1]
        assert cv2.imwrite(str(folder / f"{index}.png"), bgr)
    return folder


def test_the_workdir_contains_all_documented_files(first_run):
    config = json.loads((first_run / "config.json").read_text())
    assert config["backbone"] == {"name": "resnet18", "width": 8}
    rows = writers.read(first_run / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validate/accuracy" in row] == [3, 6]
    assert list(first_run.glob("events.out.tfevents.*"))
    assert {"3", "6"} <= {path.name for path in (first_run / "checkpoints").iterdir()}


def test_the_report_is_self_contained_and_shows_every_level(first_run):
    page = (first_run / "report.html").read_text()
    assert "<img" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for level in (2, 3, 4, 5):
        assert f"P{level}" in page


def test_training_again_after_the_end_only_reports(first_run, capsys):
    assert train(first_run) == 0
    said = capsys.readouterr().out
    assert "resuming" in said
    assert "step 6 of 6" in said


def test_evaluate_writes_exact_metrics(first_run, capsys):
    assert evaluate.run(Options(workdir=str(first_run), split="test")) == 0
    metrics = json.loads((first_run / "evaluation_test.json").read_text())
    assert metrics["records"] == 24
    assert np.sum(metrics["confusion"]) == 24
    right = np.trace(metrics["confusion"])
    assert metrics["accuracy"] == pytest.approx(right / 24)
    assert f"accuracy: {right / 24:.4f}" in capsys.readouterr().out
    table = (first_run / "mistakes_test.csv").read_text()
    wrong = list(csv.DictReader(table.splitlines()))
    assert len(wrong) == 24 - right
    assert all(row["label"] != row["predicted"] for row in wrong)


def predicted(workdir, patterns, output):
    patterns = tuple(map(str, patterns))
    return predict.run(Options(workdir=str(workdir), input=patterns, output=output))


def test_predict_equals_the_model_on_evaluation_crops(
    first_run, trained, photographs, tmp_path
):
    output = tmp_path / "out.csv"
    assert predicted(first_run, [photographs], str(output)) == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert list(rows[0]) == [
        *("path", "class", "probability_cat", "probability_dog", "error")
    ]
    assert [row["path"] for row in rows] == [
        str(photographs / f"{index}.png") for index in range(5)
    ]
    crop = trained.experiment.eval_transform
    source = DrawnSource("test", 48, test_records=5)
    images = np.stack([crop(source[index])["image"] for index in range(5)])
    expected = trained.predictor().compiled(images)["probabilities"]
    actual = [[float(r["probability_cat"]), float(r["probability_dog"])] for r in rows]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert [row["class"] for row in rows] == [
        ("cat", "dog")[best] for best in np.argmax(expected, axis=1)
    ]


def test_predict_continues_after_a_bad_file(first_run, photographs, tmp_path, capsys):
    (photographs / "note.jpg").write_text("this is no picture")
    output = tmp_path / "out.json"
    paths = [f"{photographs}/**/*.jpg", "missing.jpg", str(photographs / "0.png")]
    assert predicted(first_run, paths, str(output)) == 1
    note, missing, good = json.loads(output.read_text())
    assert note["error"]
    assert missing["error"] == "the file cannot be read: No such file or directory"
    assert missing["probability_cat"] == ""
    assert good["class"] in ("cat", "dog")
    assert "2 failed: see the column error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("patterns", "output", "says"),
    [
        (["nothing/*.jpg"], "out.csv", "matches no image files"),
        (["a.jpg"], "out.xls", "give a .csv or .json file"),
        (["a.jpg"], "nowhere/out.csv", "its folder does not exist"),
    ],
)
def test_predict_refuses_invalid_input_and_output(
    first_run, patterns, output, says, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        predicted(first_run, patterns, output)


def test_the_exported_model_runs_without_the_package(first_run, trained, tmp_path):
    output = tmp_path / "model.stablehlo"
    assert export.run(Options(workdir=str(first_run), output=str(output))) == 0
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np; from jax import export; from pathlib import Path;"
        "model = export.deserialize(bytearray(Path('model.stablehlo').read_bytes()));"
        "np.save('out.npy', model.call(np.load('images.npy')));"
        "sys.exit('fpn_jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = jax.jit(trained.predictor().exported)(images)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["classes"] == ["cat", "dog"]


def test_checkpoints_are_chosen_by_name_or_step(first_run):
    assert load(str(first_run), "latest").step == 6
    assert load(str(first_run), "3").step == 3
    with pytest.raises(InputError, match="choose one of best, latest, 3, 6"):
        load(str(first_run), "4")


@pytest.mark.usefixtures("reads_collected")
def test_a_damaged_checkpoint_is_skipped_with_a_message(first_run, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(first_run, workdir)
    data = max(
        (workdir / "checkpoints" / "6" / "state").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    damaged = bytearray(data.read_bytes())
    # About one byte in fifty of such a file belongs to no value that is read. A single
    # bit is flipped in tests/train/test_checkpoints.py, where arrays fill the file.
    for part in range(1, 16):
        damaged[part * len(damaged) // 16] ^= 1
    data.write_bytes(damaged)
    assert train(workdir) == 0
    said = capsys.readouterr()
    assert "checkpoint skipped (damaged): step 6" in said.err
    assert "resuming" in said.out
    assert "step 3 of 6" in said.out
    assert (workdir / "damaged_checkpoint_6").is_dir()
    before = load(str(first_run), "6").variables
    after = load(str(workdir), "6").variables
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
