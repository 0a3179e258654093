"""Every file of configs/: it builds, and the ways to read a backbone learn."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from fpn_jax import experiment, heads, necks
from fpn_jax.layers import pooling
from fpn_jax.train import parallel

CONFIGS = Path(__file__).parent.parent / "configs"
READERS = (
    *("aspp", "covariance", "fpn", "fpn_flatten", "fpn_ppm", "identity"),
    *("image_pyramid", "ppm", "spp"),
)
BATCH = 8


def get_config(name, variant):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)


def experiment_of(config, **changes):
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = config
        for part in parents:
            place = place[part]
        place[last] = value
    return experiment.Experiment(
        experiment.resolve(config, frozenset()), ("cat", "dog")
    )


def test_every_file_is_tested():
    files = {path.stem for path in CONFIGS.glob("*.py")}
    assert files == {*READERS, "finetune", "pooling"}


def test_the_files_cover_every_neck_and_head():
    configs = [get_config(name, "smoke") for name in READERS]
    assert {config.neck.name for config in configs} == set(necks.names())
    # The mlp is the head of the papers' own classifiers.
    assert {config.head.name for config in configs} == set(heads.names()) - {"mlp"}
    variants = runpy.run_path(str(CONFIGS / "pooling.py"))["POOLINGS"]
    assert set(variants) == set(pooling.names())


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("variant", ["smoke", "folder", "cats_vs_dogs"])
def test_every_reader_builds(name, variant):
    size = {"data__image_size": 64} if variant == "smoke" else {}
    run = experiment_of(get_config(name, variant), **size)
    transformation, _ = run.optimizer(1_000)
    state = jax.eval_shape(lambda: run.initial_state(transformation))
    assert {"backbone", "head"} <= set(state.params)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *(("finetune", name) for name in READERS),
        *(("pooling", name) for name in pooling.names()),
    ],
)
def test_every_fine_tuning_builds(name, variant):
    run = experiment_of(get_config(name, variant))
    transformation, _ = run.optimizer(1_000)
    state = jax.eval_shape(lambda: run.initial_state(transformation))
    run.check_parts(state.params)
    assert run.config.backbone.name == "mobilenet_v2"


@pytest.mark.parametrize("name", ["fpn_ppm", "aspp", "spp", "covariance"])
def test_a_few_steps_on_one_batch_bring_its_loss_down(name):
    run = experiment_of(
        get_config(name, "smoke"),
        data__image_size=64,
        data__global_batch_size=BATCH,
        optimizer__warmup_steps=0,
    )
    transformation, _ = run.optimizer(100)
    state = jax.jit(lambda: run.initial_state(transformation))()
    state, losses = parallel.replicate(state), []
    rng = np.random.default_rng(0)
    batch = parallel.shard(
        {
            "image": rng.integers(0, 256, (BATCH, 64, 64, 3), np.uint8),
            "label": np.arange(BATCH, dtype=np.int32) % 2,
            "weight": np.ones(BATCH, np.float32),
            "index": np.arange(BATCH, dtype=np.int32),
        }
    )
    step = run.train_step_at(transformation)(0)
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"].on_host().compute())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])
