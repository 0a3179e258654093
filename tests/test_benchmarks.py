"""Benchmarks train what the command line trains, and run their contenders in turns."""

import functools
import json
import threading
import types

import jax
import numpy as np
import pytest

from benchmarks import (
    checkpoint,
    compare,
    detection_inference,
    detection_step,
    inference,
    input,
    loop,
    scaling,
    segmentation_step,
    stepping,
    suppression,
    timing,
    train_step,
)
from benchmarks.faults import pictures
from benchmarks.same_as import __main__ as same_as
from benchmarks.same_as import measure, probe, rows
from benchmarks.same_as.cases import CASES
from fpn_jax.resolve import resolve


@pytest.mark.parametrize("name", compare.PYRAMIDS)
def test_every_row_of_the_table_is_a_config_that_builds(name):
    rows = {row.name: row for row in compare.rows("pyramid", "photographs", None)}
    experiment = stepping.experiment_of(rows[name].arguments)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), "uint8")
    outputs, _ = jax.eval_shape(
        lambda x: experiment.model.init_with_output(jax.random.key(0), x, train=False),
        images,
    )
    assert outputs["logits"].shape == (2, 2)


@pytest.mark.parametrize("name", train_step.CASES)
def test_every_case_is_a_config_that_builds(name):
    case = train_step.CASES[name]
    experiment = stepping.experiment_of(train_step.arguments_of(case, "bfloat16"))
    assert experiment.config.data.image_size == case.size
    assert experiment.config.train.ema_decay == 0
    assert experiment.config.optimizer.clip_norm == 0
    expected = dict.fromkeys((2, 3, 4, 5), 256) if case.fpn else {5: 8}
    given = {2: 8, 3: 8, 4: 8, 5: 8}
    assert experiment.model.neck.output_channels(given) == expected


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Counted in segmentation_models.pytorch 0.6.0 with two classes; PSPNet without
        # the two stages that it never calls.
        ("fpn", 13_047_362),
        ("pspnet", 840_994),
        ("deeplab_v3_plus", 12_329_554),
        ("unet", 14_328_354),
    ],
)
def test_a_network_for_segmentation_is_that_of_the_peer(name, parameters):
    case = segmentation_step.CASES[name]
    arguments = segmentation_step.arguments_of(case, "float32")
    model = stepping.experiment_of(arguments).model
    images = jax.ShapeDtypeStruct((1, case.size, case.size, 3), np.uint8)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == parameters


def test_the_detector_is_that_of_the_peer():
    """torchvision's has 34,014,999 with 91 classes and without its normalization."""
    case = detection_step.CASES["retinanet"]
    arguments = detection_step.arguments_of(case, "float32")
    model = stepping.experiment_of(arguments).model
    images = jax.ShapeDtypeStruct((1, case.size, case.size, 3), np.uint8)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    of_a_class = 9 * (9 * 256 + 1)
    assert count == 34_014_999 + 53_120 - (91 - 2) * of_a_class


def test_other_detections_end_the_benchmark():
    found = {
        "box_labels": np.array([[0, 1, -1]]),
        "box_scores": np.array([[0.9, 0.5, 0.0]]),
    }

    def theirs(*scores):
        values = np.array(scores)
        return [{"scores": types.SimpleNamespace(numpy=lambda: values)}]

    assert detection_inference.check_same(found, theirs(0.9, 0.5)) == 2
    for scores in ((0.9,), (0.9, 0.4)):
        with pytest.raises(SystemExit, match="image 0: 2 boxes, torchvision"):
            detection_inference.check_same(found, theirs(*scores))


def test_the_sets_of_boxes_for_suppression_overlap_as_they_say():
    kept = {}
    for name, places in suppression.SETS.items():
        made = suppression.boxes_of(places, 200)
        assert [x.shape for x in made] == [(8, 200, 4), (8, 200), (8, 200)]
        kept[name] = int(suppression.ours(*made).count.sum())
    assert kept["clusters"] < kept["apart"] == 8 * suppression.KEPT


@pytest.mark.parametrize("root", [None, "photographs"])
def test_the_data_of_a_benchmark_is_a_config_that_resolves(root):
    arguments = train_step.arguments_of(train_step.CASES["resnet18"], "float32")
    given = stepping.given_by([*arguments, *stepping.data_of(root)])
    config = resolve(given)
    assert config.data.source.name == ("folder" if root else "drawn")
    assert config.data.root == (root or "")


def test_contenders_run_in_turns():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = timing.in_turns(calls, repeats=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert timing.spread([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "shortest": 1.0,
        "longest": 3.0,
    }


def test_rows_are_written_when_they_are_added(tmp_path, capsys):
    out = tmp_path / "rows" / "some.jsonl"
    report = timing.Report("some", out)
    report.add(who="ours", seconds=0.5)
    report.add(who="peer", seconds=1.0, note="slow")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["who"] for line in lines] == ["ours", "peer"]
    assert lines[0]["machine"]["jax"] == jax.__version__
    report.show()
    shown = capsys.readouterr().out
    assert "slow" in shown
    assert "0.5" in shown


def test_a_stepping_takes_steps():
    arguments = ("--config=configs/fpn.py:smoke", "--config.data.global_batch_size=8")
    step = stepping.Stepping(arguments)
    before = int(step._state.step)
    assert step.seconds(2) > 0
    assert int(step._state.step) == before + 2
    assert step.flops() > 1e6


def test_the_loop_is_measured_with_a_complete_training():
    arguments = (
        *("--config=configs/fpn.py:smoke", "--config.data.global_batch_size=8"),
        *stepping.data_of(None),
    )
    assert loop.seconds_in_loop(arguments, steps=4, images=8) > 0


@pytest.mark.parametrize("quick", [True, False])
def test_the_input_benchmark_reads_batches(tmp_path, quick):
    pictures.write_folder(tmp_path, np.random.default_rng(0), each=input.BATCH // 2)
    batches = input.ours(str(tmp_path), size=32, threads=1, quick=quick)
    batch = next(batches)
    batches.close()
    assert (batch.shape, batch.dtype) == ((input.BATCH, 32, 32, 3), np.uint8)


def test_the_exported_model_predicts_what_the_model_predicts():
    case = train_step.CASES["resnet18"]._replace(size=32)
    calls = inference.ours(case, "float32", images=2)
    assert calls["ours"]().shape == (2, 2)
    np.testing.assert_allclose(calls["exported"](), calls["ours"](), atol=1e-5)


def test_runs_at_a_time_have_cores_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(compare.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    both = threading.Barrier(2, timeout=10)
    seen = []

    def train(row, seed, directory, cores):
        both.wait()
        seen.append((directory.name, cores))
        return {"accuracy": seed / 10, "peak_memory_mib": 1.0, "seconds": 2.0}

    monkeypatch.setattr(compare, "train", train)
    table = [compare.Row("a", ()), compare.Row("b", ())]
    lines = list(compare.train_all(table, 3, tmp_path, jobs=2))
    assert [(line["row"], line["seeds"]) for line in lines] == [("a", 3), ("b", 3)]
    assert lines[0]["accuracy"] == pytest.approx(0.1)
    assert (lines[0]["lowest"], lines[0]["highest"]) == (0.0, 0.2)
    assert {name for name, _ in seen} == {
        f"{row}_{s}" for row in "ab" for s in (0, 1, 2)
    }
    assert {frozenset(cores) for _, cores in seen} == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }


def test_a_run_that_fails_ends_the_table(monkeypatch, tmp_path):
    root = tmp_path / "none"
    row = compare.Row(
        "a", ("--config=configs/fpn.py:folder", f"--config.data.root={root}")
    )
    with pytest.raises(SystemExit, match=r"a, seed 0: .*none does not exist"):
        list(compare.train_all([row], 1, tmp_path, jobs=1))


def test_a_workdir_of_another_command_is_refused(tmp_path):
    (tmp_path / "a_0").mkdir()
    before = {"accuracy": 0.5, "command": ["-m", "fpn_jax.main", "--old"]}
    (tmp_path / "a_0" / "result.json").write_text(json.dumps(before))
    with pytest.raises(SystemExit, match=r"trained by another command: .*--old"):
        list(compare.train_all([compare.Row("a", ())], 1, tmp_path, jobs=1))


def test_the_slope_of_a_power_law_is_its_exponent():
    values = np.array([1, 2, 4, 8])
    assert scaling.slope(values, 3 * values**2) == pytest.approx(2)


def test_work_grows_with_the_area_and_the_batch():
    def count(what, value):
        return scaling.operations("resnet18", what, value)

    assert count("global_batch_size", 4) == pytest.approx(
        2 * count("global_batch_size", 2), rel=0.01
    )
    assert count("image_size", 128) > 3 * count("image_size", 64)


def test_saving_is_timed_for_ours_and_for_orbax():
    size, taken = checkpoint.measure(mebibytes=9, repeats=1)
    assert size == pytest.approx(9, rel=0.01)
    for seconds in taken.values():
        assert 0 < seconds["blocking"][0] <= seconds["written"][0]
    assert taken.keys() == {"ours", "orbax"}


def test_equal_differing_and_missing_rows_are_told_apart():
    old = {"line 1": "a", "line 2": "b", "line 3": "c"}
    assert rows.compare("metrics", old, dict(old)) == rows.Comparison(3, ())
    differing = rows.compare("metrics", old, {"line 1": "a", "line 2": "B"})
    assert differing.differences == (
        "line 2: b there, B here",
        "line 3: only there",
    )
    more = rows.compare("metrics", old, old | {"line 4": "d"})
    assert more.differences == ("line 4: only here",)


def test_a_measurement_that_one_side_lacks_differs():
    old = {"metrics": {"line 1": "a"}, "export": {"output": "b"}}
    lines = same_as.lines_of("smoke", old, {"metrics": {"line 1": "a"}}, 1.0)
    assert [line.outcome for line in lines] == ["equal", "differs"]
    assert rows.compare("metrics", {}, {}).differences
    assert not same_as.all_equal(lines)
    assert same_as.all_equal(lines[:1])
    not_run = same_as.Line("folder", "", "not run", details=("needs --root",))
    assert same_as.all_equal([lines[0], not_run])
    assert not same_as.all_equal([not_run])


def test_an_evaluation_may_have_more_keys_and_an_export_another_size():
    old, new = {"accuracy": "0.5"}, {"accuracy": "0.5", "wrong": "[3]"}
    more = rows.compare("evaluation", old, new)
    assert more == rows.Comparison(1, (), ("wrong: only here",))
    assert rows.compare("evaluation", old, new | {"accuracy": "0.6"}).differences
    size = rows.compare("size of the export", {"bytes": "10"}, {"bytes": "12"})
    assert size == rows.Comparison(0, (), ("bytes: 10 there, 12 here",))


def test_rows_name_batches_and_numbers_and_leave_times_out(tmp_path):
    lines = [{"label": name} for name in ("t0", "t1", "v0", "v1", "v0", "v1")]
    recorded = tmp_path / "batches.jsonl"
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rows.batches(recorded, training=2) == {
        "training batch 0 label": "t0",
        "training batch 1 label": "t1",
        "validation batch 0 label": "v0",
        "validation batch 1 label": "v1",
    }
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "train/loss": 0.1, "train/images_per_second": 9}\n')
    assert rows.metrics(metrics) == {"line 1 step": "1", "line 1 train/loss": "0.1"}


def test_a_digest_sees_values_type_and_shape():
    ones = np.ones((2, 3), np.float32)
    others = (ones + 1, ones.astype(np.float16), ones.T, ones.view(np.int32))
    digests = {probe.digest(array) for array in (ones, ones.copy(), *others)}
    assert len(digests) == 1 + len(others)


def test_a_case_names_the_paths_that_it_needs():
    given = {"root": "photographs", "weights": "file"}
    assert CASES["smoke"].missing({}) == []
    assert CASES["finetune"].missing({}) == ["root", "weights"]
    assert CASES["finetune"].missing(given) == []
    assert "--config.data.root=photographs" in CASES["folder"].flags(given)


def test_a_package_of_another_tree_is_refused(tmp_path):
    measure.check_package(measure.REPOSITORY)
    other = tmp_path / "elsewhere" / "fpn_jax"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "fpn_jax").symlink_to(other)
    with pytest.raises(measure.RunFailed, match=r"Python imports .*elsewhere"):
        measure.check_package(tmp_path / "tree")


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(measure.RunFailed, match=r"exit code 3: .*the reason"):
        measure.run(tmp_path, ["-c", "print('the reason'); raise SystemExit(3)"])
