"""Weights of every backbone: there and back, loaded in part, and refused in words."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from fpn_jax import backbones, pretrained
from fpn_jax.errors import InputError
from fpn_jax.pretrained import convert
from fpn_jax.pretrained.families import FAMILIES, family_of
from fpn_jax.pretrained.preprocessing import RECIPES

WITHOUT_WEIGHTS = {"lenet5", "alexnet_lrn", "unet"}
NAMES = [name for family in FAMILIES for name in family.maps]
SMALL = {"width": 8, "width_multiplier": 0.25}
"""Arguments that make a backbone small; the names of its layers are the same."""


@functools.cache
def target(name):
    """Returns the shapes of a small classifier of two classes."""
    small = {key: SMALL[key] for key in backbones.accepts(name) & SMALL.keys()}
    return pretrained._of_classifier(name, 2, small)


def filled(shapes):
    """Returns arrays of which no two numbers nearby are the same."""
    numbers = iter(range(10**9))
    return jax.tree.map(
        lambda x: np.arange(x.size, dtype=np.float32).reshape(x.shape) + next(numbers),
        shapes,
    )


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Returns the file of a small MobileNetV2 with its classifier, and its arrays."""
    variables = filled(target("mobilenet_v2"))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    pretrained.save(str(path), "mobilenet_v2", variables, recipe="tensorflow")
    return str(path), variables


def test_every_backbone_but_the_named_ones_has_weights():
    assert sorted(NAMES) == sorted(set(backbones.names()) - WITHOUT_WEIGHTS)


@pytest.mark.parametrize("name", NAMES)
def test_ours_to_theirs_to_ours_is_the_identity(name):
    shapes, pairs = target(name), family_of(name).maps[name][0]
    # Some heads are large, and have their own test.
    shapes = {key: {"backbone": tree["backbone"]} for key, tree in shapes.items()}
    ours = filled(shapes)
    theirs = pretrained.to_state_dict(name, ours)
    assert_same(ours, convert.from_state_dict(theirs, shapes, pairs))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_map_are_one_to_one(name):
    shapes = target(name)
    for pairs in family_of(name).maps[name]:
        slots = convert.slots(shapes, pairs)
        assert len({slot.name for slot in slots.values()}) == len(slots)
        for path, slot in slots.items():
            module = convert.our_module(slot.name.rpartition(".")[0], pairs)
            assert module == "/".join(path[1:-1])


def test_a_backbone_is_loaded_without_the_files_classifier(small):
    path, variables = small
    loaded = pretrained.load("mobilenet_v2", path, width_multiplier=0.25)
    assert_same(loaded["params"], variables["params"]["backbone"])
    assert_same(loaded["batch_stats"], variables["batch_stats"]["backbone"])


@pytest.mark.parametrize("selection", [{"levels": (2, 3)}, {"head_conv": False}])
def test_layers_that_are_not_asked_for_are_left_out(small, selection):
    path, variables = small
    arguments = {"width_multiplier": 0.25} | selection
    loaded = pretrained.load("mobilenet_v2", path, **arguments)
    whole = variables["params"]["backbone"]
    assert set(loaded["params"]) < set(whole)
    for module, parameters in loaded["params"].items():
        assert_same(parameters, whole[module])
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    backbone = backbones.build("mobilenet_v2", **arguments)
    apply = functools.partial(backbone.apply, train=False)
    assert set(jax.eval_shape(apply, loaded, images)) == set(backbone.levels)


def test_a_classifier_is_loaded_whole(small):
    path, variables = small
    load = functools.partial(pretrained.load_classifier, "mobilenet_v2", path)
    assert_same(load(num_classes=2, width_multiplier=0.25), variables)
    with pytest.raises(InputError, match=r"2 of another shape: classifier\.1"):
        load(width_multiplier=0.25)


def test_a_backbone_without_norms_has_no_statistics(tmp_path):
    path = str(tmp_path / "x.safetensors")
    variables = {"params": filled(target("vgg11"))["params"]["backbone"]}
    pretrained.save(path, "vgg11", variables)
    assert_same(pretrained.load("vgg11", path, width=8), variables)


def test_the_map_that_knows_most_names_is_taken(small, tmp_path):
    _, variables = small
    timm = convert.to_state_dict(
        variables, family_of("mobilenet_v2").maps["mobilenet_v2"][1]
    )
    assert "conv_stem.weight" in timm
    save_file(timm, tmp_path / "timm.safetensors")
    path = str(tmp_path / "timm.safetensors")
    loaded = pretrained.load("mobilenet_v2", path, width_multiplier=0.25)
    assert_same(loaded["params"], variables["params"]["backbone"])


def test_weights_of_another_architecture_say_so(tmp_path):
    shapes, _ = pretrained._shapes(backbones.build("resnet34"))
    path = str(tmp_path / "x.safetensors")
    pretrained.save(path, "resnet34", filled(shapes))
    with pytest.raises(InputError) as error:
        pretrained.load("resnet18", path)
    text = str(error.value)
    assert "do not fit backbone 'resnet18', but look like 'resnet34': " in text
    assert "72 more" in text


def test_weights_of_another_family_say_so(tmp_path):
    shapes, _ = pretrained._shapes(backbones.build("alexnet"))
    path = str(tmp_path / "x.safetensors")
    pretrained.save(path, "alexnet", filled(shapes))
    with pytest.raises(InputError, match="look like 'alexnet': 8 missing: "):
        pretrained.load("vgg11", path)


def test_foreign_weights_look_like_nothing(tmp_path):
    path = str(tmp_path / "x.safetensors")
    save_file({"encoder.layer.0.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(InputError) as error:
        pretrained.load("mobilenet_v1", path)
    assert "look like" not in str(error.value)
    assert "1 extra: encoder.layer.0.weight" in str(error.value)


def test_unknown_names_and_arguments(small):
    with pytest.raises(InputError, match="'mobilenet_v3' is unknown"):
        pretrained.load("mobilenet_v3", small[0])
    with pytest.raises(InputError, match="'lenet5' has no published weights"):
        pretrained.load("lenet5", small[0])
    with pytest.raises(InputError, match="'wdth' is unknown"):
        pretrained.load("mobilenet_v2", small[0], wdth=2)
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        pretrained.save("x.pth", "mobilenet_v2", small[1])
    with pytest.raises(InputError, match="recipe 'keras' is unknown"):
        pretrained.save("x.safetensors", "mobilenet_v2", small[1], recipe="keras")


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_every_backbone_can_be_built_or_is_refused(name):
    for recipe in ("", *RECIPES):
        if recipe == "tensorflow" and "same" not in family_of(name).paddings:
            with pytest.raises(InputError, match="needs padding 'same'"):
                pretrained.preprocessing(name, recipe)
            with pytest.raises(InputError, match="'same' is unknown"):
                backbones.build(name, padding="same")
            continue
        given = pretrained.preprocessing(name, recipe)
        arguments = {"padding": given.padding, "epsilon": given.epsilon}
        arguments = {key: x for key, x in arguments.items() if x is not None}
        assert arguments.keys() <= backbones.accepts(name)
        assert given.image_size == backbones.build(name, **arguments).native_size


def test_recipes_by_caller_by_file_and_by_family(small):
    path, half = small[0], (0.5, 0.5, 0.5)
    of_file = pretrained.preprocessing("mobilenet_v2", path=path)
    assert (of_file.mean, of_file.padding, of_file.epsilon) == (half, "same", 1e-3)
    of_family = pretrained.preprocessing("mobilenet_v2")
    assert of_family.mean == (0.485, 0.456, 0.406)
    assert (of_family.padding, of_family.epsilon) == ("symmetric", 1e-5)
    assert pretrained.preprocessing("mobilenet_v2", "torchvision", path) == of_family
    assert pretrained.preprocessing("vgg11").padding == "paper"
    assert pretrained.preprocessing("inception_v3").mean == half
    with pytest.raises(InputError, match="recipe 'keras' is unknown"):
        pretrained.preprocessing("mobilenet_v2", "keras")


def test_nothing_of_the_weights_is_lost_in_a_flat_tree(small):
    leaves = traverse_util.flatten_dict(small[1])
    names = pretrained.to_state_dict("mobilenet_v2", small[1])
    assert len(leaves) == len(names)
