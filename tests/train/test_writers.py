import json
import math

import pytest

from fpn_jax.errors import InputError
from fpn_jax.train import writers


def test_written_entries_can_be_read(tmp_path):
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(1, {"train/loss": 0.1 + 0.2})
    writer.write(2, {"train/loss": float("nan"), "x": float("inf"), "y": -math.inf})
    writer.close()
    rows = writers.read(tmp_path / "metrics.jsonl")
    assert rows[0] == {"step": 1, "train/loss": 0.1 + 0.2}
    assert rows[1] == {"step": 2, "train/loss": "nan", "x": "inf", "y": "-inf"}
    assert math.isnan(float(rows[1]["train/loss"]))


def test_every_line_is_strict_json(tmp_path):
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(1, {"loss": float("nan")})
    writer.close()

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_flush_writes_entries_to_the_disk(tmp_path):
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(1, {"loss": 1.0})
    writer.flush()
    assert writers.read(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
    writer.close()


def test_resuming_drops_later_entries_and_a_new_run_drops_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": float(step)})
    writer.write(4, {"validate/accuracy": float("nan")})
    writer.close()
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl", resume_step=2)
    writer.write(3, {"loss": 30.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in writers.read(path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    writers.MetricsWriter(tmp_path / "metrics.jsonl").close()
    assert writers.read(path) == []


def test_an_incomplete_last_line_is_dropped_before_new_entries(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert writers.read(path) == [{"step": 1, "loss": 2.0}]
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl", resume_step=1)
    writer.write(2, {"loss": 3.0})
    writer.close()
    assert [row["step"] for row in writers.read(path)] == [1, 2]


def test_a_missing_file_has_no_entries(tmp_path):
    assert writers.read(tmp_path / "metrics.jsonl") == []


def test_tensorboard_receives_the_scalars(tmp_path):
    writer = writers.MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(7, {"train/loss": 0.25})
    writer.close()
    (events,) = tmp_path.glob("events.out.tfevents*")
    assert b"train/loss" in events.read_bytes()


def test_no_writer_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = writers.NoWriter()
    writer.write(1, {"loss": 1.0})
    writer.flush()
    writer.close()
    assert not list(tmp_path.iterdir())


def test_lines_that_are_no_entries_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('[1]\n3\n"text"\n{"loss": 1}\n{"step": "2"}\n{"step": 2}\n{"st')
    assert writers.read(path) == [{"step": 2}]
    path.write_text('\ufeff{"step": 2}\n', encoding="utf-8")
    assert writers.read(path) == [{"step": 2}]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_entries_in_another_encoding_are_refused(tmp_path, encoding):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "caf\u00e9": 1}\n', encoding=encoding)
    with pytest.raises(InputError, match="is not UTF-8 text: convert it, or move it"):
        writers.read(path)
