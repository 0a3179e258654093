"""Training that starts from the weights of another run."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest

from fpn_jax import config as configs
from fpn_jax.errors import InputError
from fpn_jax.resolve import resolve as resolve_given
from fpn_jax.trained import initial_weights, load
from tests.conftest import given, planned, tiny, train
from tests.test_bad_input import write_photographs


def leaves(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def same(one, other):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    return [bool((one[key] == other[key]).all()) for key in one]


def begin(config, classes=("cat", "dog")):
    """Returns the pretrained variables of a config."""
    run = planned(config, classes)
    like = jax.eval_shape(lambda: run.initial_state(optax.identity()))
    return initial_weights(run, like)


def test_a_run_can_start_from_the_backbone_of_another_run_with_other_classes(
    first_run, tmp_path, monkeypatch, capsys
):
    root = write_photographs(tmp_path / "photos", classes=("cat", "dog", "fox"))
    changes = dict(
        data__source="folder",
        data__root=str(root),
        data__global_batch_size=8,
        train__total_steps=2,
        train__evaluate_every_steps=2,
        train__ema_decay=0.9,
        optimizer__warmup_steps=0,
        pretrained__path=str(first_run),
        finetune__freeze=("backbone",),
        finetune__frozen_norm_steps=-1,
    )
    workdir = tmp_path / "run"
    assert train(workdir, **changes) == 0
    before, after = load(str(first_run), "best"), load(str(workdir), "latest")
    assert after.experiment.info.classes == ("cat", "dog", "fox")
    for collection in ("params", "batch_stats"):
        old, new = before.variables[collection], after.variables[collection]
        assert all(same(old["backbone"], new["backbone"]))
    head = after.variables["params"]["head"]["logits"]["kernel"]
    assert head.shape[-1] == 3
    assert not any(
        same(before.variables["params"]["neck"], after.variables["params"]["neck"])
    )


def test_statistics_change_if_they_are_not_frozen(first_run, tmp_path):
    changes = dict(
        pretrained__path=str(first_run),
        finetune__freeze=("backbone",),
        finetune__frozen_norm_steps=2,
        train__total_steps=3,
    )
    assert train(tmp_path / "run", **changes) == 0
    before, after = load(str(first_run), "best"), load(str(tmp_path / "run"), "latest")
    pair = [model.variables["params"]["backbone"] for model in (before, after)]
    assert all(same(*pair))
    pair = [model.variables["batch_stats"]["backbone"] for model in (before, after)]
    assert not all(same(*pair))


def test_a_resumed_run_unfreezes_like_an_uninterrupted_run(first_run, tmp_path):
    """Stops at step 3; the backbone unfreezes at step 4, its statistics at step 5."""
    changes = dict(
        pretrained__path=str(first_run),
        finetune__freeze=("backbone=4",),
        finetune__learning_rate_multipliers=("backbone=0.5",),
        finetune__frozen_norm_steps=5,
        train__accumulation_steps=2,
    )
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(whole, **changes) == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "6")
    assert load(str(resumed), "latest").step == 3
    assert train(resumed, **changes) == 0
    ends = [load(str(path), "6").variables for path in (whole, resumed)]
    assert all(same(*ends))
    frozen = [load(str(path), "3").variables["params"] for path in (whole, resumed)]
    assert not all(same(frozen[0]["backbone"], ends[0]["params"]["backbone"]))


def test_all_parts_of_a_run_can_be_loaded(first_run):
    parts = ("backbone", "neck", "head")
    weights = begin(tiny(pretrained__path=str(first_run), pretrained__parts=parts))
    assert all(same(weights, load(str(first_run), "best").variables))


def a_workdir(path, **backbone):
    """Creates the folder of a run that contains only the config."""
    path.mkdir()
    stored = configs.as_json(tiny())
    stored["model"]["mean"] = [0.1, 0.2, 0.3]
    stored["backbone"] = backbone
    (path / "config.json").write_text(json.dumps(stored))
    return path


def resolve(path, **changes):
    changes = {"pretrained__path": path} | changes
    return resolve_given(given("configs/fpn.py", **changes))


def test_a_run_sets_the_backbone_arguments_and_pixel_statistics(tmp_path, capsys):
    path = a_workdir(tmp_path / "run", name="resnet18", width=8)
    config = resolve(path)
    assert config.backbone.width == 8
    assert config.model.mean == (0.1, 0.2, 0.3)
    said = capsys.readouterr().out
    assert "backbone.width is 8: set from the pretrained weights" in said
    mean = (0.485, 0.456, 0.406)
    config = resolve(path, model__mean=mean, backbone__width=24)
    assert config.backbone.width == 24
    assert config.model.mean == mean


def test_a_run_sets_the_backbone(tmp_path):
    path = a_workdir(tmp_path / "run", name="mobilenet_v2", padding="same")
    config = resolve(path)
    assert config.backbone.to_dict() == {"name": "mobilenet_v2", "padding": "same"}
    with pytest.raises(InputError, match=r"is 'resnet18', but the run in .* has 'mob"):
        resolve(path, backbone__name="resnet18")


@pytest.mark.parametrize("stored", ["[]", '{"architecture": "resnet50"}'])
def test_a_folder_of_downloaded_weights_is_refused(tmp_path, stored):
    (tmp_path / "config.json").write_text(stored)
    with pytest.raises(InputError, match="give the file itself"):
        resolve(tmp_path)


def test_resuming_does_not_need_the_pretrained_weights(first_run, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(first_run, source)
    changes = {
        "pretrained__path": str(source),
        "finetune__freeze": ("backbone=2",),
        "train__total_steps": 3,
    }
    workdir = str(tmp_path / "run")
    assert train(workdir, **changes) == 0
    shutil.rmtree(source)
    assert train(workdir, **changes) == 0
    assert load(workdir, "latest").step == 3
    with pytest.raises(InputError, match="source' does not exist"):
        tiny(**changes)


def test_a_run_with_only_an_unfinished_checkpoint_has_not_begun(first_run, tmp_path):
    """Simulates a run that was killed during its first save."""
    left = tmp_path / "run" / "checkpoints" / "3.orbax-checkpoint-tmp-7"
    left.mkdir(parents=True)
    changes = dict(
        pretrained__path=str(first_run),
        finetune__freeze=("backbone",),
        finetune__frozen_norm_steps=-1,
        train__total_steps=3,
    )
    assert train(tmp_path / "run", **changes) == 0
    before, after = load(str(first_run), "best"), load(str(tmp_path / "run"), "latest")
    pair = [model.variables["params"]["backbone"] for model in (before, after)]
    assert all(same(*pair))


def test_without_pretrained_weights_the_initial_weights_are_random():
    assert begin(tiny()) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone__width": 12}, "backbone have other names or shapes"),
        (
            {"pretrained__parts": ("spine",)},
            "the parts of the run in .*: backbone, head, neck",
        ),
        ({"pretrained__parts": ()}, "the parts of the run in .*: backbone, head, neck"),
        (
            {"pretrained__parts": ("backbone", "neck"), "neck__name": "identity"},
            "neck have other names or shapes",
        ),
        ({"pretrained__recipe": "torchvision"}, "recipe has no effect"),
    ],
)
def test_weights_of_a_run_that_do_not_fit_are_refused(first_run, changes, says):
    with pytest.raises(InputError, match=says):
        begin(tiny(pretrained__path=str(first_run), **changes))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a run directory: config\.json"):
        tiny(pretrained__path=str(tmp_path))


def test_setting_parts_without_weights_is_refused():
    with pytest.raises(InputError, match="parts has no effect"):
        tiny(pretrained__parts=("neck",))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"finetune__freeze": ("backbone=3",)}, "freezes randomly initialised weights"),
        ({"finetune__frozen_norm_steps": -1}, "freezes randomly initialised weights"),
        ({"finetune__freeze": ("backbone=6",), "weights": 1}, "ends at step 6, but"),
        ({"finetune__freeze": ("backbone=2.5",), "weights": 1}, "a whole number"),
        ({"finetune__frozen_norm_steps": 9, "weights": 1}, "ends at step 9, but"),
    ],
)
def test_freezing_without_effect_is_refused(changes, says, first_run, tmp_path):
    if changes.pop("weights", None):
        changes["pretrained__path"] = str(first_run)
    with pytest.raises(InputError, match=says):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_freezing_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="'backbone/stage9' is unknown"):
        train(tmp_path / "run", finetune__freeze=("backbone/stage9",))
    assert not (tmp_path / "run").exists()
