"""Mistakes of the user: each gives one or two lines of text and loses no data."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fpn_jax.errors import InputError
from fpn_jax.modes import Options, check, evaluate
from fpn_jax.trained import load
from tests.conftest import CONFIG, ROOT, tiny_given, train


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fpn_jax.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--config.optimizer.learnin_rate=1"],
            "Choose one of clip_norm, learning_rate",
        ),
        (
            ["--config.bakbone.name=vgg11"],
            "--config key 'bakbone' is unknown; did you mean 'backbone'",
        ),
        (
            ["--config.optimizer.learning_rate=fast"],
            "could not convert string to float",
        ),
        (["--config.train.total_steps=2.5"], "invalid literal for int()"),
        (
            ["--config.neck.upsamplng=bilinear"],
            "argument of neck 'fpn' 'upsamplng' is unknown; did you mean 'upsampling'",
        ),
        (["--config.backbone.output_stride", "12"], "output_stride 12 is unknown"),
        (["--config.head.name=flatten", "--config.head.pool=gem"], "has no effect"),
        (["--wrkdir=x"], "Did you mean: workdir"),
        (["--mode=evalute"], "train|check|evaluate|predict|export"),
        (
            ["--input=a.jpg"],
            "--mode=train does not take --input; the modes that take it are: predict",
        ),
        (["photos"], "unknown argument 'photos'"),
        (["--workdir=other"], "--workdir is given 2 times; give it once"),
        (["--config.data=drawn"], "--config.data is a group of keys; set one of them"),
        (["--process_id=1", "--num_processes=2"], "must be given together"),
        (["--distributed", "--coordinator=here:1"], "must be given together"),
    ],
)
def test_a_mistyped_flag_gives_one_line_with_the_choices(arguments, says, tmp_path):
    workdir = tmp_path / "run"
    ran = command(f"--config={CONFIG}", f"--workdir={workdir}", *arguments)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert len(ran.stderr.strip().splitlines()) <= 2
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("configs/nope.py", "the file configs/nope.py does not exist"),
        ("configs/fpn.py:smok", "choose one of smoke, folder, cats_vs_dogs"),
    ],
)
def test_a_missing_config_file_or_variant_is_refused(config, says):
    ran = command(f"--config={config}", "--workdir=x")
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_empty_flag_is_refused():
    ran = command(f"--config={CONFIG}", "--workdir=")
    assert ran.returncode == 2
    assert "--workdir is empty; give a value, or leave it out" in ran.stderr


def test_a_mode_refuses_to_run_without_a_flag_that_it_needs():
    ran = command("--mode=predict", "--workdir=x")
    assert (ran.returncode, ran.stderr) == (
        2,
        "fpn_jax: --mode=predict needs --input\n",
    )


def test_evaluating_a_workdir_without_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match="has no checkpoint; train first"):
        load(str(tmp_path), "best")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data__global_batch_size": 12}, "must be a multiple of the 8 devices"),
        ({"data__source__train_records": 8}, "8 records, fewer than one batch"),
        ({"data__image_size": 24}, "24 × 24 is too small for level 5"),
        ({"backbone__name": "resnet19"}, "did you mean 'resnet18'"),
        ({"optimizer__name": "adam"}, "did you mean 'adamw'"),
        ({"optimizer__warmup_steps": 6}, "smaller than the 6 steps of this run"),
        ({"data__source": "folder"}, "data.root is empty"),
        ({"data__source": "folder", "data__root": "/no/such"}, "/no/such"),
        ({"train__ema_decay": 1.0}, "train.ema_decay is 1.0"),
        ({"train__log_every_steps": 0}, "train.log_every_steps is 0"),
        ({"mix__probability": 2.0, "mix__cutmix_alpha": 1.0}, "probability is 2.0"),
        ({"augment__crop_scale": (0.9, 0.1)}, "crop_scale|scale"),
        ({"data__crop_fraction": 1.5}, "crop_fraction"),
        ({"train__keep_checkpoints": 0}, "train.keep_checkpoints is 0"),
        ({"train__seed": -1}, "train.seed is -1"),
        (
            {"data__source": "tfds", "data__source__dataset": "Cats Vs Dogs"},
            "cats_vs_dogs",
        ),
        ({"data__num_threads": 0}, "data.num_threads is 0"),
        ({"data__on_bad_file": "skip"}, "no effect, because drawn data has no files"),
    ],
)
def test_an_invalid_config_is_refused_before_the_workdir_is_created(
    changes, says, tmp_path
):
    with pytest.raises(InputError, match=says):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_another_config_is_refused(first_run):
    before = (first_run / "config.json").read_text()
    with pytest.raises(InputError, match=r"train.seed was 0 and is now 7"):
        train(first_run, train__seed=7)
    assert (first_run / "config.json").read_text() == before


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        train(tmp_path / "file" / "run")


def test_a_remote_workdir_is_refused():
    with pytest.raises(InputError, match="remote paths are not supported"):
        train("gs://bucket/run")


def test_a_checkpoint_of_another_architecture_is_refused(first_run, tmp_path):
    """Edits the config of a workdir by hand, so that it differs from the checkpoint."""
    workdir = tmp_path / "copy"
    shutil.copytree(first_run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["neck"]["width"] = 24
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"neck\.width was 16 and is now 24"):
        train(workdir, neck__width=24)


def write_photographs(root, *, classes=("Cat", "Dog"), splits=("Train", "Validate")):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                assert cv2.imwrite(str(folder / f"{number}.jpg"), rng_image(rng))
    return root


def rng_image(rng):
    return rng.integers(0, 256, (40, 50, 3), np.uint8)


def folder(root, **changes):
    return {"data__source": "folder", "data__root": str(root)} | changes


def check_folder(root, **changes):
    return check.run(Options(given=tiny_given(**folder(root, **changes))))


def evaluate_on(workdir, root):
    options = Options(workdir=str(workdir), data_root=str(root))
    return evaluate.run(options)


def truncate(path):
    path.write_bytes(path.read_bytes()[:600])


def test_check_lists_every_bad_file_and_changes_no_file(tmp_path, capsys):
    root = write_photographs(tmp_path / "photos")
    truncate(root / "Train" / "Cat" / "3.jpg")
    (root / "Validate" / "Dog" / "0.jpg").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert check_folder(root) == 1
    said = capsys.readouterr().out
    assert str(root / "Train" / "Cat" / "3.jpg") in said
    assert str(root / "Validate" / "Dog" / "0.jpg") in said
    assert said.count(".jpg:") == 2
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_check_succeeds_if_all_files_are_good(tmp_path, capsys):
    root = write_photographs(tmp_path / "photos")
    assert check_folder(root) == 0
    assert "all can be decoded" in capsys.readouterr().out


def test_a_bad_file_stops_the_run_with_its_name(tmp_path):
    root = write_photographs(tmp_path / "photos")
    truncate(root / "Train" / "Cat" / "3.jpg")
    with pytest.raises(InputError, match=r"Cat/3\.jpg"):
        train(tmp_path / "run", **folder(root))


def test_skipped_bad_files_are_counted_and_listed_in_the_report(tmp_path, capsys):
    root = write_photographs(tmp_path / "photos")
    truncate(root / "Train" / "Cat" / "3.jpg")
    truncate(root / "Validate" / "Dog" / "5.jpg")
    changes = folder(root, data__on_bad_file="skip", train__total_steps=3)
    assert train(tmp_path / "run", **changes) == 0
    assert "Skipped files that cannot be decoded: 2" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text().replace("<wbr>", "")
    assert "Cat/3.jpg" in page
    assert "Dog/5.jpg" in page
    options = Options(workdir=str(tmp_path / "run"), checkpoint="latest")
    assert evaluate.run(options) == 0
    metrics = json.loads((tmp_path / "run" / "evaluation_validate.json").read_text())
    assert metrics["records"] == 15
    assert len(metrics["skipped"]) == 1


def test_resuming_with_other_data_is_refused(tmp_path):
    root = write_photographs(tmp_path / "photos")
    changes = folder(root, train__total_steps=3, train__evaluate_every_steps=1)
    assert train(tmp_path / "run", **changes) == 0
    (root / "Train" / "Cat" / "3.jpg").unlink()
    (root / "Train" / "Cat" / "4.jpg").unlink()
    more = rng_image(np.random.default_rng(1))
    for number in range(9, 14):
        assert cv2.imwrite(str(root / "Train" / "Dog" / f"{number}.jpg"), more)
    with pytest.raises(InputError, match=r"has 19 records, but the run .* with 16"):
        train(tmp_path / "run", **changes)


def test_a_split_without_a_decodable_file_is_refused(first_run, tmp_path):
    root = write_photographs(tmp_path / "photos")
    for path in (root / "Validate").rglob("*.jpg"):
        truncate(path)
    changes = folder(root, data__on_bad_file="skip")
    with pytest.raises(
        InputError, match="none of the files of the split can be decoded"
    ):
        train(tmp_path / "run", **changes)


def test_evaluating_on_other_classes_is_refused(first_run, tmp_path):
    root = write_photographs(tmp_path / "photos", classes=("cat", "fox"))
    with pytest.raises(InputError, match=r"was trained on data\.source=drawn"):
        evaluate_on(first_run, root)
    workdir = tmp_path / "run"
    good = write_photographs(tmp_path / "good", classes=("cat", "dog"))
    assert train(workdir, **folder(good, train__total_steps=3)) == 0
    with pytest.raises(InputError, match="fox is not one of the classes 'cat', 'dog'"):
        evaluate_on(workdir, root)
