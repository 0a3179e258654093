"""The config files build; resolving a config keeps only keys that have an effect."""

import runpy

import jax
import pytest

from fpn_jax import config as configs
from fpn_jax.command_line import Given
from fpn_jax.errors import InputError
from fpn_jax.resolve import resolve as resolve_given
from fpn_jax.workdir.folder import refuse_other
from tests.conftest import ROOT, given, planned, prepared

VARIANTS = ("", "smoke", "folder", "cats_vs_dogs")


def file_config(variant=""):
    return runpy.run_path(str(ROOT / "configs" / "fpn.py"))["get_config"](variant)


def resolve(variant="", **changes):
    return resolve_given(given(f"configs/fpn.py:{variant}".rstrip(":"), **changes))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shipped_config_builds(variant):
    config = resolve(variant)
    made = prepared(config, records=30_000)
    assert made.plan.total_steps > made.plan.evaluate_every_steps > 0
    assert len(jax.tree.leaves(made.like.params)) > 20
    assert made.experiment.task.num_classes == 2


def test_a_config_survives_json():
    config = resolve()
    again = configs.load(configs.as_json(config))
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.augment.crop_scale, tuple)


@pytest.mark.parametrize("neck", ["fpn", "identity"])
@pytest.mark.parametrize("head", ["flatten", "pool"])
def test_setting_only_a_name_replaces_a_part(neck, head, capsys):
    config = resolve("smoke", neck__name=neck, head__name=head)
    run = planned(config)
    assert len(run.model.channels) == (4 if neck == "fpn" else 1)
    said = capsys.readouterr().out
    assert ("identity' does not take" in said) == (neck == "identity")
    assert ("does not take pool" in said) == (head == "flatten")


def test_setting_only_a_name_replaces_the_backbone():
    for name in ("resnet50", "vgg16", "vgg11_bn"):
        config = resolve("smoke", backbone__name=name)
        assert planned(config).model.backbone.channels


def test_another_source_drops_the_arguments_of_the_config_file():
    assert "train_records" in resolve().data.source
    source = resolve(data__source="folder", data__root="photos").data.source
    assert source.to_dict() == {"name": "folder"}
    source = resolve(
        data__source__validate_fraction=0.2, data__source="folder", data__root="photos"
    ).data.source
    assert source.to_dict() == {"name": "folder", "validate_fraction": 0.2}


def test_the_command_line_chooses_steps_or_epochs():
    config = resolve(train__total_steps=7)
    assert (config.train.total_steps, config.train.epochs) == (7, None)
    config = resolve(train__epochs=2.0, optimizer__warmup_steps=0)
    assert prepared(config, records=65).plan.total_steps == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone__name": "resnet19"}, "did you mean 'resnet18'"),
        ({"neck__name": "fpm"}, "neck 'fpm' is unknown"),
        ({"head__name": "pol"}, "head 'pol' is unknown; did you mean 'pool'"),
        ({"data__source": "disk"}, "source 'disk' is unknown"),
        (
            {"data__folder__validate_fraction": 0.2},
            "data.folder.validate_fraction is now named --config.data.source.validate",
        ),
        ({"data__tfds__name": "mnist"}, "is now named --config.data.source.dataset"),
        ({"head__pool_arguments__p": 2}, "is now named --config.head.pool.p"),
        ({"neck__upsampling_arguments": {}}, "is now named --config.neck.upsampling"),
        ({"data__root": "photos"}, "drawn data has no files"),
        ({"neck__name": "identity", "neck__width": 8}, "neck.width has no effect"),
        ({"train__total_steps": 5, "train__epochs": 1.0}, "give exactly one of them"),
        ({"train__epochs": float("nan")}, "train.epochs is nan; give a finite"),
        ({"data__background": (0, 0, 0)}, "data.background has no effect"),
        ({"mix__probability": 0.5}, "mix.probability has no effect"),
        ({"augment__randaugment_magnitude": 5.0}, "magnitude has no effect"),
    ],
)
def test_resolving_refuses_invalid_configs(changes, says):
    with pytest.raises(InputError, match=says):
        resolve(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data__image_size": 31}, "31 × 31 is too small for level 5"),
        ({"model__dtype": "float16"}, "hoose one of float32, bfloat16"),
        ({"model__std": (1.0, 0.0, 1.0)}, "std is"),
        ({"backbone__width": 0}, "width"),
        ({"neck__extra_levels": -1}, "extra_levels"),
        ({"head__dropout": 1.5}, "dropout"),
    ],
)
def test_building_the_model_refuses_invalid_arguments(changes, says):
    with pytest.raises(InputError, match=says):
        _ = planned(resolve(**changes)).model


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data__global_batch_size": 36}, "a multiple of the 8 devices, such as 32"),
        ({"data__global_batch_size": 0}, "a multiple of the 8 devices, such as 8"),
        (
            {"train__accumulation_steps": 3},
            "it must divide the 4 images of each device",
        ),
        ({"train__accumulation_steps": 0}, "accumulation_steps is 0"),
        ({"train__keep_checkpoints": 0}, "keep_checkpoints is 0"),
        ({"train__seed": -1}, "seed is -1"),
        (
            {"mix__mixup_alpha": 0.2, "train__accumulation_steps": 4},
            "have no effect on one image at a time",
        ),
    ],
)
def test_preparing_refuses_invalid_values(changes, says):
    with pytest.raises(InputError, match=says):
        prepared(resolve(**changes))


def test_resuming_with_another_config_names_every_key_that_differs():
    now = {"train": {"seed": 1}, "data": {"root": "b", "num_threads": 2}}
    stored = {"train": {"seed": 0}, "data": {"root": "a", "num_threads": 4}}
    with pytest.raises(InputError, match=r"train\.seed was 0 and is now 1\n"):
        refuse_other(stored, now, "runs/first")
    refuse_other(stored, now | {"train": {"seed": 0}}, "runs/first")


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("", {}),
        ("folder", {"train__accumulation_steps": 2}),
        ("folder", {"head__name": "flatten", "neck__name": "identity"}),
        ("cats_vs_dogs", {}),
    ],
)
def test_a_step_of_a_shipped_config_keeps_every_shape_and_dtype(variant, changes):
    config = resolve(variant, **changes)
    made = prepared(config)
    state = made.like
    per_device, size = config.data.global_batch_size // 8, config.data.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((8, per_device, size, size, 3), "uint8"),
        "label": jax.ShapeDtypeStruct((8, per_device), "int32"),
        "weight": jax.ShapeDtypeStruct((8, per_device), "float32"),
        "index": jax.ShapeDtypeStruct((8, per_device), "int32"),
    }
    after, metrics = jax.eval_shape(made.step_at(0), state, batch)

    def kinds(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert kinds(after) == kinds(state)
    assert metrics["gradient_norm"].shape == ()
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("train", "config.train key 'emma_decay' is unknown; did you mean 'ema_decay'"),
        ("optimizer", "argument of optimizer 'adamw' 'emma_decay' is unknown; did"),
        ("augment", "config.augment key 'emma_decay' is unknown; choose one of"),
        ("backbone", "argument of backbone 'resnet18' 'emma_decay' is unknown"),
    ],
)
def test_an_unknown_key_of_the_config_file_is_refused(prefix, says):
    config = file_config()
    here = config
    for name in prefix.split("."):
        here = here[name]
    with config.unlocked():
        here.emma_decay = 0.5
    with pytest.raises(InputError, match=says):
        prepared(resolve_given(Given(config, frozenset())))


@pytest.mark.parametrize(
    "missing", ["mix", "train.seed", "augment.flip", "model.dtype"]
)
def test_the_error_names_a_key_that_the_config_file_lacks(missing):
    config = file_config()
    *parents, last = missing.split(".")
    here = config[parents[0]] if parents else config
    with config.unlocked():
        del here[last]
    with pytest.raises(InputError, match=f"the config lacks {missing}"):
        prepared(resolve_given(Given(config, frozenset())))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("train.epochs", "2", "train.epochs is '2'; it must be a number, or None"),
        ("train.seed", 1.5, "train.seed is 1.5; it must be a whole number"),
        ("train", None, "train is None; it must be a dict with the keys total_steps"),
        ("augment.crop_scale", 0.5, "augment.crop_scale is 0.5; it must be 2 numbers"),
        ("data.background", (1, 2), "data.background is (1, 2); it must be 3 whole"),
        ("data.root", None, "data.root is None; it must be text"),
        ("model.mean", (0, 0, "x"), "model.mean is (0, 0, 'x'); it must be 3 numbers"),
        ("finetune.freeze", 3, "finetune.freeze is 3; it must be text, or texts in a"),
        ("neck.levels", 5, "argument 'levels' of neck 'fpn' is 5; it must be whole"),
        (
            "task.label_smoothing",
            "x",
            "argument 'label_smoothing' of task 'classification' is 'x'; it must be a",
        ),
    ],
)
def test_a_config_file_with_a_value_of_another_type_is_refused(key, value, text):
    config = file_config("smoke")
    *parents, last = key.split(".")
    here = config
    for name in parents:
        here = here[name]
    with here.ignore_type():
        here[last] = value
    with pytest.raises(InputError) as error:
        prepared(resolve_given(Given(config, frozenset())))
    assert str(error.value).startswith(text)
