"""The folder of a run: its files, its config, and workdirs of version 0.1."""

import json
import shutil

import pytest

from fpn_jax import config as configs
from fpn_jax.errors import InputError
from fpn_jax.modes import Options, evaluate
from fpn_jax.trained import load
from fpn_jax.workdir.folder import Workdir
from tests.conftest import tiny, train


def version_0_1(config):
    """Returns a config in the form of version 0.1."""
    old = json.loads(json.dumps(config))
    source = old["data"]["source"]
    name = source.pop("name")
    if name == "tfds":
        source["name"] = source.pop("dataset")
    old["data"] |= {"source": name, name: source}
    for part, choice in (
        ("head", "pool"),
        ("neck", "upsampling"),
        ("neck", "context"),
    ):
        spec = old[part].get(choice)
        if isinstance(spec, dict):
            old[part][choice] = spec.pop("name")
            old[part][f"{choice}_arguments"] = spec
    del old["task"]["name"]
    return old


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__source": "folder", "data__source__validate_fraction": 0.2},
        {"data__source": "tfds", "data__source__dataset": "cats_vs_dogs"},
        {"head__pool": "gem", "head__pool__p": 2.0},
        {"neck__upsampling": "bicubic", "neck__upsampling__coefficient": -0.75},
        {"neck__context": "ppm", "neck__context__bins": (1, 2)},
    ],
)
def test_a_config_of_version_0_1_is_upgraded(changes):
    today = configs.as_json(tiny(**changes))
    assert version_0_1(today) != today
    assert configs.upgrade(version_0_1(today)) == today
    assert configs.upgrade(today) == today


def as_version_0_1(first_run, path):
    """Copies a finished run into a workdir of version 0.1."""
    shutil.copytree(first_run, path)
    stored = version_0_1(json.loads((path / "config.json").read_text()))
    (path / "config.json").write_text(json.dumps(stored))
    return path


def test_a_workdir_of_version_0_1_is_resumed(first_run, tmp_path, capsys):
    workdir = as_version_0_1(first_run, tmp_path / "old")
    assert train(workdir) == 0
    assert "resuming" in capsys.readouterr().out
    assert json.loads((workdir / "config.json").read_text())["task"]["name"]
    with pytest.raises(InputError, match=r"train\.seed was 0 and is now 1"):
        train(as_version_0_1(first_run, tmp_path / "other"), train__seed=1)


def test_a_workdir_of_version_0_1_is_evaluated(first_run, tmp_path, monkeypatch):
    """Checkpoints of version 0.1 store the old config, only classes, and no monitor."""
    from fpn_jax.train.checkpoints import Checkpoints

    newest = Checkpoints.meta

    def old_meta(self, step):
        meta = dict(newest(self, step))
        meta["config"] = version_0_1(meta["config"])
        meta["classes"] = meta.pop("info")["classes"]
        del meta["monitor"]
        return meta

    best = load(str(first_run), "best").step
    monkeypatch.setattr(Checkpoints, "meta", old_meta)
    workdir = as_version_0_1(first_run, tmp_path / "old")
    assert load(str(workdir), "best").step == best
    assert evaluate.run(Options(workdir=str(workdir))) == 0


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ('{"model": {}, "backbone": {}}', "is no config that this version"),
        (
            '{"model": {}, "backbone": {}, "data": 3}',
            "train again in another --workdir",
        ),
        ("[1]", "is not a run directory"),
        ("{", "is not JSON in UTF-8"),
        ("\ufeff[1]".encode("utf-16"), "is not JSON in UTF-8"),
        (b'{"model": "\xe9"}', "the checkpoints contain the config, too"),
    ],
)
def test_an_unreadable_config_gives_a_sentence(tmp_path, stored, says):
    data = stored if isinstance(stored, bytes) else stored.encode()
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(InputError, match=says) as raised:
        Workdir(tmp_path).stored_config()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("without", ["config.json", None])
def test_checkpoints_bind_the_config_without_and_against_config_json(
    first_run, tmp_path, without
):
    workdir = tmp_path / "copy"
    shutil.copytree(first_run, workdir)
    if without:
        (workdir / without).unlink()
    else:
        stored = json.loads((workdir / "config.json").read_text())
        stored["train"]["seed"] = 7
        (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"train\.seed was 0 and is now 7"):
        Workdir(workdir)._bind(tiny(train__seed=7))
    if without:
        assert Workdir(workdir).stored_config()["train"]["seed"] == 0


def test_a_renamed_step_is_not_believed(first_run, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(first_run, workdir)
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    newest = workdir / "checkpoints" / str(steps[-1])
    newest.rename(workdir / "checkpoints/77")
    for checkpoint in ("latest", "77"):
        with pytest.raises(InputError, match=f"its folder contains step {steps[-1]}"):
            load(str(workdir), checkpoint)


@pytest.mark.parametrize("name", ["exp[1]", "[run]", "run*", "a?", "a\\b"])
def test_a_path_that_checkpoints_cannot_have_is_refused_first(tmp_path, name):
    for workdir in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(InputError, match="which the storage of checkpoints"):
            train(workdir)
        assert not (tmp_path / name).exists()


def test_a_workdir_inside_of_the_data_is_refused_first(tmp_path):
    for path in ("data", "data/runs/a"):
        with pytest.raises(InputError, match=r"is inside of data\.root"):
            tiny(
                str(tmp_path / path),
                data__source="folder",
                data__root=str(tmp_path / "data"),
            )
    tiny(str(tmp_path / "x"), data__source="folder", data__root=str(tmp_path / "data"))
