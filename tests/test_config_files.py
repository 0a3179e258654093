"""Every file of configs/ builds, and training reduces the loss."""

import dataclasses
import functools
import runpy

import jax
import numpy as np
import pytest

from fpn_jax import contract
from fpn_jax.data.sources import drawn
from fpn_jax.experiment import Experiment
from fpn_jax.resolve import resolve
from fpn_jax.train import parallel
from tests.conftest import ROOT, given, prepared

CONFIGS = ROOT / "configs"
NECKS_AND_HEADS = (
    *("aspp", "covariance", "fpn", "fpn_flatten", "fpn_ppm", "identity"),
    *("image_pyramid", "ppm", "spp"),
)
NECKS = {"fpn", "identity", "ppm", "aspp", "image_pyramid"}
HEADS = {"flatten", "pool", "spp"}
POOLINGS = {
    *("average", "covariance", "gem", "k_max", "l2", "lip", "lp", "max", "median"),
    *("min", "mixed", "soft", "stochastic"),
}
"""What the files cover at least; a new neck, head or pooling needs no config."""
NETWORKS = ("fpn", "psp", "deeplab", "unet", "identity")
DENSE = {
    "segmentation": ("", "smoke", *(f"pets+{name}" for name in NETWORKS), "scratch"),
    "localization": ("", "smoke", "pets", "boxes", "scratch"),
    "landmarks": ("", "smoke", "points", "mobilenet", "cats", "scratch"),
    "detection": (
        "",
        "smoke",
        "fcos",
        "heads",
        "heads+fcos",
        "scratch",
        "retinanet",
        "retinanet_v2",
        "grid",
        "coco",
        "smoke+grid",
        "heads+grid",
    ),
}
"""Config file of a dense task → its variants."""
VARIANTS = runpy.run_path(str(CONFIGS / "pooling.py"))["POOLINGS"]
"""Variants of `configs/pooling.py`."""
BATCH = 8


def get_config(name, variant):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)


def prepare(name, variant, **changes):
    return prepared(resolve(given(f"configs/{name}.py:{variant}", **changes)))


def test_every_config_file_is_tested():
    files = {path.stem for path in CONFIGS.glob("*.py")}
    assert files == {*NECKS_AND_HEADS, "finetune", "pooling", *DENSE}


def test_the_files_cover_the_necks_heads_and_pooling_layers():
    configs = [get_config(name, "smoke") for name in NECKS_AND_HEADS]
    assert {config.neck.name for config in configs} >= NECKS
    assert {config.head.name for config in configs} >= HEADS
    assert VARIANTS.keys() >= POOLINGS


@pytest.mark.parametrize("name", NECKS_AND_HEADS)
@pytest.mark.parametrize("variant", ["smoke", "folder", "cats_vs_dogs"])
def test_every_neck_and_head_config_builds(name, variant):
    size = {"data__image_size": 64} if variant == "smoke" else {}
    made = prepare(name, variant, **size)
    assert {"backbone", "head"} <= set(made.like.params)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns a file named like weights of mobilenet_v2; only its metadata is read."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.npz"
    np.savez(path, weight=np.zeros(1, np.float32))
    return path


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *(("finetune", name) for name in NECKS_AND_HEADS),
        *(("pooling", name) for name in VARIANTS),
    ],
)
def test_every_fine_tuning_config_builds(name, variant, weights):
    made = prepare(
        name, variant, pretrained__path=weights, pretrained__recipe="torchvision"
    )
    assert made.experiment.config.backbone.name == "mobilenet_v2"


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name, variants in DENSE.items() for variant in variants],
)
def test_every_dense_config_builds(name, variant, weights):
    pretrained = variant.startswith(("pets", "boxes", "cats", "heads", "coco"))
    changes = {"pretrained__path": weights, "pretrained__recipe": "tensorflow"}
    config = resolve(
        given(f"configs/{name}.py:{variant}", **(changes if pretrained else {}))
    )
    info = drawn.INFO
    if config.task.name == "segmentation":
        info = dataclasses.replace(info, mask_classes=("background", "pet"))
    made = Experiment(config, info)
    images = jax.ShapeDtypeStruct((1, *made.image_size, 3), np.uint8)
    init = functools.partial(made.model.init_with_output, train=False)
    predictions, _ = jax.eval_shape(init, jax.random.key(0), images)
    contract.check(config.task.name, made.task, predictions, made.image_size, info)


@pytest.mark.parametrize("variant", ["pet", "pets+fnp", "smoke+", "+unt"])
def test_an_unknown_variant_of_segmentation_is_refused_with_the_choices(variant):
    if variant == "smoke+":
        assert get_config("segmentation", variant).neck.name == "fpn"
        return
    with pytest.raises(ValueError, match=r"choose one of smoke, pets.*fpn, psp"):
        get_config("segmentation", variant)


@pytest.mark.parametrize("name", ["fpn_ppm", "aspp", "spp", "covariance"])
def test_a_few_steps_on_one_batch_reduce_its_loss(name):
    made = prepare(
        name,
        "smoke",
        data__image_size=64,
        data__global_batch_size=BATCH,
        optimizer__warmup_steps=0,
        train__total_steps=100,
    )
    state, losses = parallel.replicate(jax.jit(made.initial)()), []
    rng = np.random.default_rng(0)
    batch = parallel.shard(
        {
            "image": rng.integers(0, 256, (BATCH, 64, 64, 3), np.uint8),
            "label": np.arange(BATCH, dtype=np.int32) % 2,
            "weight": np.ones(BATCH, np.float32),
            "index": np.arange(BATCH, dtype=np.int32),
        }
    )
    step = made.step_at(0)
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"].on_host().compute())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])
