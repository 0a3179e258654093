"""Benchmarks: they train what the command line would; contenders run in turns."""

import json

import jax
import pytest

from benchmarks import compare, stepping, timing, train_step

# ml_collections loads a config's file in a way that Python 3.12 drops.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize("name", compare.PYRAMIDS)
def test_every_row_of_the_table_is_a_config_that_builds(name):
    rows = {row.name: row for row in compare.rows("pyramid", "photographs", None)}
    planned = stepping.experiment_of(rows[name].arguments)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), "uint8")
    outputs, _ = jax.eval_shape(
        lambda x: planned.model.init_with_output(jax.random.key(0), x, train=False),
        images,
    )
    assert outputs["logits"].shape == (2, 2)


@pytest.mark.parametrize("name", train_step.CASES)
def test_every_case_is_a_config_that_builds(name):
    case = train_step.CASES[name]
    planned = stepping.experiment_of(train_step.arguments_of(case, "bfloat16"))
    assert planned.config.data.image_size == case.size
    assert planned.config.train.ema_decay == 0
    assert planned.config.optimizer.clip_norm == 0
    expected = dict.fromkeys((2, 3, 4, 5), 256) if case.fpn else {5: 8}
    given = {2: 8, 3: 8, 4: 8, 5: 8}
    assert planned.model.neck.output_channels(given) == expected


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


def test_rows_are_written_as_they_come(tmp_path, capsys):
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
    made = stepping.Stepping(arguments)
    before = int(made._state.step)
    assert made.seconds(2) > 0
    assert int(made._state.step) == before + 2
    assert made.flops() > 1e6
