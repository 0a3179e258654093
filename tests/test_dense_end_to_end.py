"""Every mode serves every dense task, from the training to the exported file."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from fpn_jax.modes import Options, evaluate, export, predict, report
from fpn_jax.modes import train as train_mode
from fpn_jax.trained import load
from tests.conftest import given

TASKS = ("segmentation", "localization", "landmarks", "detection")
SMALL = {
    "data__image_size": 32,
    "data__global_batch_size": 8,
    "data__source__train_records": 16,
    "data__source__validate_records": 10,
    "data__source__test_records": 9,
    "backbone__levels": "(2,3,4)",
    "neck__width": 8,
    "optimizer__warmup_steps": 1,
    "train__total_steps": 2,
    "train__evaluate_every_steps": 2,
}
COLUMNS = {
    "segmentation": ["share_background", "share_animal"],
    "localization": ["class", "probability", "x0", "y0", "x1", "y1"],
    "landmarks": ["landmark", "x", "y", "visible", "probability"],
    "detection": ["class", "score", "x0", "y0", "x1", "y1"],
}


@pytest.fixture(scope="module", params=TASKS)
def run(request, tmp_path_factory):
    """Returns the name of the task, and the workdir of a run of two steps."""
    workdir = str(tmp_path_factory.mktemp("dense") / request.param)
    config = given(f"configs/{request.param}.py:smoke", **SMALL)
    assert train_mode.run(Options(given=config, workdir=workdir)) == 0
    return request.param, workdir


def test_evaluate_prints_and_stores_every_metric_with_its_definition(run, capsys):
    name, workdir = run
    options = Options(workdir=workdir, split="test", checkpoint="latest")
    assert evaluate.run(options) == 0
    printed = capsys.readouterr().out
    stored = json.loads(
        (load(workdir, "latest").workdir.evaluation("test")).read_text()
    )
    assert stored["records"] == 9
    definitions = load(workdir, "latest").experiment.task.definitions
    for metric, meaning in definitions.items():
        assert metric in stored
        assert f"({meaning})" in printed
    of_classes = {"segmentation": "class_iou", "detection": "class_ap"}
    assert name not in of_classes or len(stored[of_classes[name]]) == 2


def test_predict_draws_and_tabulates_in_pixels_of_the_photograph(run, tmp_path):
    name, workdir = run
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"wide": (41, 90), "tall": (77, 30)}
    for stem, size in sizes.items():
        noise = rng.integers(256, size=(*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{stem}.png")
    options = Options(
        workdir=workdir,
        checkpoint="latest",
        input=(str(folder),),
        output=f"{tmp_path}/out/",
    )
    assert predict.run(options) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["path", *COLUMNS[name], "error"]
    assert len(lines) == (10 if name == "landmarks" else 2)
    results = tmp_path / "out" / "results.json"
    assert results.is_file() == (name in ("localization", "detection"))
    for stem, size in sizes.items():
        assert (tmp_path / "out" / f"{stem}.png").is_file()
        if name == "segmentation":
            mask = np.asarray(Image.open(tmp_path / "out" / f"{stem}_mask.png"))
            assert mask.shape == size
            assert set(np.unique(mask)) <= {0, 1}
            colours = np.asarray(Image.open(tmp_path / "out" / f"{stem}_colours.png"))
            assert colours.shape == (*size, 3)


def test_the_report_and_the_exported_file_are_written(run, tmp_path):
    _, workdir = run
    options = Options(workdir=workdir, checkpoint="latest", split="test")
    assert report.run(options) == 0
    page = load(workdir, "latest").workdir.report("test").read_text()
    assert "data:image/jpeg;base64," in page
    output = tmp_path / "model.stablehlo"
    options = Options(workdir=workdir, checkpoint="latest", output=str(output))
    assert export.run(options) == 0
    model = jax.export.deserialize(bytearray(output.read_bytes()))
    images = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    found = model.call(images)
    expected = load(workdir, "latest").predictor().compiled(images)
    assert set(found) == set(expected)
    for key, value in found.items():
        got, wanted = np.asarray(value, float), np.asarray(expected[key], float)
        np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=key)
    # One image alone has the same answer.
    for key, value in model.call(images[1:2]).items():
        got, wanted = np.asarray(value, float), np.asarray(found[key][1:2], float)
        np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=key)
