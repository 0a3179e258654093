"""The table of a model's blocks, and the list of every name."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from fpn_jax import backbones, heads, necks
from fpn_jax.data.sources import SOURCES
from fpn_jax.layers.pooling import POOLINGS
from fpn_jax.layers.upsampling import UPSAMPLINGS
from fpn_jax.model import PyramidModel
from fpn_jax.modes import MODES, Options, summary
from fpn_jax.train.optimizer import OPTIMIZERS
from tests.conftest import CONFIG, ROOT, planned, tiny, tiny_given


def blocks_of(size=32, **changes):
    model = planned(tiny(data__image_size=size, **changes)).model
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    return {"/".join(block.path): block for block in summary.blocks(model, images)}


def test_blocks_have_what_can_be_counted_by_hand():
    blocks = blocks_of()
    smooth = blocks["neck/smooth5"]
    assert smooth.outputs == {"": [(1, 1, 1, 16)]}
    assert smooth.parameters == 3 * 3 * 16 * 16 + 16
    # The window over a 1 × 1 map has one cell inside: one product of 16 by 16.
    assert smooth.flops == 2 * 16 * 16 + 16
    assert smooth.bytes == 16 * 4
    stem = blocks["backbone/stem"]
    assert (stem.parameters, stem.statistics) == (7 * 7 * 3 * 8 + 2 * 8, 2 * 8)
    assert stem.outputs == {"": [(1, 16, 16, 8)]}
    assert blocks["backbone"].outputs["2"] == [(1, 8, 8, 8)]
    assert blocks["head"].outputs == {"logits": [(1, 2)]}


def test_the_parts_are_the_whole():
    blocks = blocks_of()
    for count in ("parameters", "statistics"):
        whole = getattr(blocks[""], count)
        parts = ("backbone", "neck", "head")
        assert sum(getattr(blocks[part], count) for part in parts) == whole
        deepest = [block for path, block in blocks.items() if "/" in path]
        assert sum(getattr(block, count) for block in deepest) == whole
    model = planned(tiny()).model
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), images, train=False)
    )
    params = jax.tree.leaves(variables["params"])
    assert blocks[""].parameters == sum(leaf.size for leaf in params)
    assert sum(blocks[part].flops for part in parts) <= blocks[""].flops


def test_a_backbone_that_runs_over_several_sizes_is_one_block():
    blocks = blocks_of(size=64, neck__name="image_pyramid", neck__num_scales=2)
    shapes = blocks["backbone"].outputs["5"]
    assert [shape[1:3] for shape in shapes] == [(2, 2), (1, 1)]
    one = blocks_of(size=64, neck__name="identity")["backbone"]
    assert blocks["backbone"].parameters == one.parameters
    assert one.flops < blocks["backbone"].flops < 2 * one.flops


def test_the_table_fits_a_page(capsys):
    assert summary.run(Options(given=tiny_given())) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert "\x1b" not in said
    assert "2 classes: cat, dog" in said
    assert "backbone/stage4" in said
    assert "a multiplication and an addition count as two" in " ".join(said.split())


def test_without_its_data_two_classes_are_assumed(capsys):
    assert summary.run(Options(given=tiny_given(data__source="folder"))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "2 classes: assumed, because the data cannot be read (data.root is empty"
        in said
    )


@pytest.fixture(scope="module")
def listed():
    return subprocess.run(
        [sys.executable, "-m", "fpn_jax.main", "--mode=list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_list_names_everything(listed):
    assert (listed.returncode, listed.stderr) == (0, "")
    names = {line.split(" ")[0] for line in listed.stdout.splitlines()}
    for table in (
        *(backbones.names(), necks.names(), heads.names(), POOLINGS, UPSAMPLINGS),
        *(OPTIMIZERS, SOURCES, MODES),
    ):
        assert set(table) <= names


def test_the_list_is_plain_and_narrow(listed):
    assert "\x1b" not in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 100


def test_the_modes_want_what_they_need():
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fpn_jax.main", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    needs = command("--mode=summary")
    assert (needs.returncode, needs.stderr) == (
        2,
        "fpn_jax: --mode=summary needs --config\n",
    )
    takes = command("--mode=list", f"--config={CONFIG}")
    assert takes.returncode == 2
    assert "--mode=list does not take --config" in takes.stderr


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2"])
def test_a_backbone_at_its_own_size(name):
    backbone = backbones.build(name)
    model = PyramidModel(
        backbone, necks.build("identity"), heads.build("pool", num_classes=2)
    )
    size = backbone.native_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    whole, *_ = summary.blocks(model, images)
    assert whole.outputs == {"logits": [(1, 2)]}
    assert whole.flops > 0
