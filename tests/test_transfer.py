"""Training that begins with what another training left."""

import jax
import numpy as np
import pytest
from conftest import tiny
from test_bad_input import write_photographs

from fpn_jax import experiment, run
from fpn_jax.errors import InputError
from fpn_jax.trained import initial_weights, load


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
    """Returns what a run of the config begins with."""
    planned = experiment.Experiment(config, classes)
    transformation, _ = planned.optimizer(10)
    like = jax.eval_shape(lambda: planned.initial_state(transformation))
    return initial_weights(planned, like)


def test_the_backbone_of_a_run_goes_on_with_other_classes(
    first_run, tmp_path, monkeypatch, capsys
):
    root = write_photographs(tmp_path / "photos", classes=("cat", "dog", "fox"))
    config = tiny(
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
    assert run.train(config, str(workdir)) == 0
    before, after = load(str(first_run), "best"), load(str(workdir), "latest")
    assert after.experiment.classes == ("cat", "dog", "fox")
    for collection in ("params", "batch_stats"):
        old, new = before.variables[collection], after.variables[collection]
        assert all(same(old["backbone"], new["backbone"]))
    head = after.variables["params"]["head"]["logits"]["kernel"]
    assert head.shape[-1] == 3
    assert not any(
        same(before.variables["params"]["neck"], after.variables["params"]["neck"])
    )


def test_without_frozen_statistics_they_move(first_run, tmp_path):
    config = tiny(
        pretrained__path=str(first_run),
        finetune__freeze=("backbone",),
        finetune__frozen_norm_steps=2,
        train__total_steps=3,
    )
    assert run.train(config, str(tmp_path / "run")) == 0
    before, after = load(str(first_run), "best"), load(str(tmp_path / "run"), "latest")
    pair = [model.variables["params"]["backbone"] for model in (before, after)]
    assert all(same(*pair))
    pair = [model.variables["batch_stats"]["backbone"] for model in (before, after)]
    assert not all(same(*pair))


def test_every_part_of_a_run_can_be_taken(first_run):
    parts = ("backbone", "neck", "head")
    weights = begin(tiny(pretrained__path=str(first_run), pretrained__parts=parts))
    assert all(same(weights, load(str(first_run), "best").variables))


def test_a_run_gives_its_backbones_arguments_and_pixels(first_run, capsys):
    config = tiny(pretrained__path=str(first_run), model__mean=(0.1, 0.2, 0.3))
    assert config.backbone.width == 8
    config = experiment.resolve(
        wide := _unresolved(first_run), frozenset({"pretrained.path"})
    )
    assert wide.backbone.width == 24
    assert config.backbone.width == 8
    said = capsys.readouterr().out
    assert "backbone.width is 8: it comes with the weights" in said


def _unresolved(path):
    import pathlib
    import runpy

    root = pathlib.Path(__file__).parent.parent
    config = runpy.run_path(str(root / "configs" / "fpn.py"))["get_config"]()
    config.pretrained.path = str(path)
    return config


def test_nothing_given_begins_with_random_numbers():
    assert begin(tiny()) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone__width": 12}, "backbone are of another model"),
        ({"pretrained__parts": ("spine",)}, "has backbone, head, neck"),
        ({"pretrained__parts": ()}, "has backbone, head, neck"),
        ({"pretrained__recipe": "torchvision"}, "recipe has no effect"),
    ],
)
def test_a_run_that_does_not_fit(first_run, changes, says):
    with pytest.raises(InputError, match=says):
        begin(tiny(pretrained__path=str(first_run), **changes))


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(InputError, match=r"is no workdir of a run: config\.json"):
        tiny(pretrained__path=str(tmp_path))


def test_parts_without_weights_have_no_effect():
    with pytest.raises(InputError, match="parts has no effect"):
        tiny(pretrained__parts=("neck",))


def test_a_part_that_the_model_does_not_have(tmp_path):
    with pytest.raises(InputError, match="'backbone/stage9' is unknown"):
        run.train(tiny(finetune__freeze=("backbone/stage9",)), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
