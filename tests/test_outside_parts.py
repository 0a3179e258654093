"""Parts from outside the package train, evaluate, predict, export and reload."""

import csv
import json

import cv2
import numpy as np
import pytest
from jax import export as jax_export

from fpn_jax.data.sources.drawn import DrawnSource
from fpn_jax.errors import InputError
from fpn_jax.modes import Options, evaluate, export, predict, report
from fpn_jax.train import writers
from fpn_jax.trained import load
from tests.conftest import train

PARTS = "tests.outside_parts"
MODEL = {
    "backbone__name": f"{PARTS}:MyBackbone",
    "neck__name": f"{PARTS}:MyNeck",
    "train__total_steps": 4,
    "train__evaluate_every_steps": 2,
    "optimizer__warmup_steps": 0,
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Returns a run with backbone, neck, pooling and source from outside."""
    workdir = tmp_path_factory.mktemp("outside") / "classifier"
    changes = MODEL | {
        "head__pool": f"{PARTS}:MyPool",
        "head__pool__scale": 0.5,
        "data__source": f"{PARTS}:MySource",
        "data__source__brightness": 80,
    }
    assert train(workdir, **changes) == 0
    return workdir


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """Returns a run with backbone, neck, head and task from outside."""
    workdir = tmp_path_factory.mktemp("outside") / "segmenter"
    changes = MODEL | {
        "head__name": f"{PARTS}:MyHead",
        "task__name": f"{PARTS}:MyTask",
        "task__weight_of_pet": 2.0,
    }
    assert train(workdir, **changes) == 0
    return workdir


def test_the_stored_config_names_the_module_of_each_part(classifier):
    config = json.loads((classifier / "config.json").read_text())
    assert config["backbone"]["name"] == f"{PARTS}:MyBackbone"
    assert config["head"]["pool"] == {"name": f"{PARTS}:MyPool", "scale": 0.5}
    assert config["data"]["source"] == {"name": f"{PARTS}:MySource", "brightness": 80}


@pytest.mark.parametrize("run", ["classifier", "segmenter"])
def test_every_mode_works_with_outside_parts(run, request, tmp_path):
    workdir = str(request.getfixturevalue(run))
    assert evaluate.run(Options(workdir=workdir, split="test")) == 0
    assert report.run(Options(workdir=workdir, split="test")) == 0
    image = DrawnSource("test", 40, test_records=1)[0]["image"]
    assert cv2.imwrite(str(tmp_path / "a.png"), image[:, :30, ::-1])
    table = str(tmp_path / "out.csv")
    inputs = (str(tmp_path / "a.png"),)
    assert predict.run(Options(workdir=workdir, input=inputs, output=table)) == 0
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert row["class"] in ("cat", "dog", "dark", "bright")
    output = tmp_path / "model.stablehlo"
    assert export.run(Options(workdir=workdir, output=str(output))) == 0
    model = jax_export.deserialize(bytearray(output.read_bytes()))
    images = np.zeros((2, 32, 32, 3), np.uint8)
    answer = model.call(images)
    assert (answer["mask"].shape if run == "segmenter" else answer.shape)[0] == 2


def test_each_loss_is_logged_and_the_metric_of_the_task_ranks_checkpoints(segmenter):
    entries = writers.read(segmenter / "metrics.jsonl")
    steps = [entry for entry in entries if "train/loss" in entry]
    for entry in steps:
        total = entry["train/pet"] + entry["train/background"]
        assert entry["train/loss"] == pytest.approx(total, rel=1e-5)
    evaluations = [e for e in entries if "validate/pixel_accuracy" in e]
    best = max(evaluations, key=lambda e: (e["validate/pixel_accuracy"], e["step"]))
    assert load(str(segmenter), "best").step == best["step"]


def test_predicted_masks_are_in_pixels_of_the_image(segmenter):
    predictor = load(str(segmenter), "best").predictor()
    image = DrawnSource("test", 90, test_records=1)[0]["image"][:70]
    (answer,) = predictor.predict_images([image])
    assert answer["mask"].shape == (70, 90)
    assert set(np.unique(answer["mask"])) <= {0, 1}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"task__name": f"{PARTS}:MyTask"},
            "MyTask' reads logit_map, but head 'pool' returns logits",
        ),
        (
            {
                "task__name": f"{PARTS}:MyTask",
                "head__name": f"{PARTS}:MyHead",
                "data__source": f"{PARTS}:MySource",
            },
            "needs mask, but data.source 'tests.outside_parts:MySource' has only label",
        ),
        (
            {"head__name": f"{PARTS}:MyHead"},
            "reads logits, but head .* returns logit_m",
        ),
        ({"head__name": f"{PARTS}:NoHead"}, "has no class 'NoHead'"),
        ({"head__name": "nowhere:Head"}, "cannot be imported .*PYTHONPATH"),
        (
            {"neck__name": f"{PARTS}:MyTask"},
            "cannot be used: the class must inherit from Module and have",
        ),
        (
            {"neck__name": "subprocess:Popen"},
            "cannot be used: the class must inherit from Module and have",
        ),
    ],
)
def test_unsuitable_parts_are_refused_by_name(changes, says, tmp_path):
    with pytest.raises(InputError, match=says):
        train(tmp_path / "run", **MODEL | changes)
    assert not (tmp_path / "run").exists()


def test_mixup_is_refused_for_a_task_that_is_not_mixable(tmp_path):
    changes = MODEL | {
        "head__name": f"{PARTS}:MyHead",
        "task__name": f"{PARTS}:MyTask",
        "mix__cutmix_alpha": 1.0,
    }
    with pytest.raises(InputError, match="Mixup and CutMix are not meaningful"):
        train(tmp_path / "run", **changes)
    with pytest.raises(InputError, match="crop_fraction has no effect"):
        train(tmp_path / "run", **MODEL | changes, data__crop_fraction=0.9)
