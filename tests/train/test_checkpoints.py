import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fpn_jax.errors import InputError
from fpn_jax.train import parallel, state
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint, SaveFailed
from fpn_jax.train.checksums import checksum

# After a failed read, TensorStore's other reads end when Orbax has closed their event
# loop, or when they are garbage-collected.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. (None|.coroutine object _read)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("reads_collected"),
]

META = {"config": {"data": {"image_size": 64}}, "classes": ["cat", "dog"]}


def variables(width=24, with_batch_norm=True):
    kernel = jax.random.normal(jax.random.key(1), (width, width))
    made = {"params": {"dense": {"kernel": kernel, "bias": jnp.arange(float(width))}}}
    if with_batch_norm:
        made["batch_stats"] = {"norm": {"mean": jnp.full(width, 0.1)}}
    return made


def first_state(step=0, *, with_ema=True, **of_variables):
    made = state.create(
        lambda _: variables(**of_variables), optax.adamw(0.1), seed=5, with_ema=with_ema
    )
    if with_ema:
        # The average differs from the parameters, so that a mix-up is detected.
        made = made.replace(ema=jax.tree.map(lambda a: a + 0.5, made.ema))
    return made.replace(step=jnp.int32(step))


def at_step(step, **options):
    return parallel.replicate(first_state(step, **options))


def like(**options):
    return jax.eval_shape(functools.partial(first_state, **options))


@pytest.fixture
def open_checkpoints(tmp_path):
    """Returns a function that opens the folder of checkpoints again."""
    opened = []

    def open_again(**options):
        made = Checkpoints(tmp_path / "checkpoints", monitor="accuracy", **options)
        opened.append(made)
        return made

    yield open_again
    for made in opened:
        made.close()


def plain(tree):
    def one(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    return jax.tree.map(one, tree)


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(
        jax.tree.leaves(plain(actual)), jax.tree.leaves(plain(expected)), strict=True
    ):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.mark.parametrize(
    "options",
    [
        {"with_ema": True, "with_batch_norm": True},
        {"with_ema": False, "with_batch_norm": False},
    ],
    ids=["all parts", "no average, no statistics"],
)
def test_a_restored_state_is_bitwise_equal_and_on_all_devices(
    open_checkpoints, options
):
    saved = at_step(7, **options)
    checkpoints = open_checkpoints()
    checkpoints.save(saved, META | {"pending": {"loss": 0.1}}, {"accuracy": 0.5})
    checkpoints.wait()
    checkpoints = open_checkpoints()
    restored = checkpoints.restore(7, like(**options))
    assert_same_bits(restored, saved)
    assert restored.rng.dtype == saved.rng.dtype
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == jax.local_device_count()
    assert (restored.ema is None) != options["with_ema"]
    meta = checkpoints.meta(7)
    assert {key: meta[key] for key in META} == META
    assert (meta["step"], meta["pending"]) == (7, {"loss": 0.1})
    evaluated = checkpoints.restore_eval_variables(7, like(**options))
    assert_same_bits(evaluated, saved.eval_variables)


def test_restoring_eval_variables_needs_no_optimizer(open_checkpoints):
    checkpoints = open_checkpoints()
    saved = at_step(1)
    checkpoints.save(saved, META, None)
    checkpoints.wait()
    other = jax.eval_shape(
        lambda: state.create(
            lambda _: variables(), optax.identity(), seed=0, with_ema=True
        )
    )
    assert_same_bits(checkpoints.restore_eval_variables(1, other), saved.ema)


def test_buffers_of_a_state_can_be_donated_after_save(open_checkpoints):
    checkpoints = open_checkpoints()
    saved = at_step(1)
    before = plain(saved.params)
    checkpoints.save(saved, META, None)
    for leaf in jax.tree.leaves(saved):
        leaf.delete()
    checkpoints.wait()
    assert_same_bits(checkpoints.restore(1, like()).params, before)


def test_the_newest_and_the_best_checkpoints_are_kept(open_checkpoints):
    checkpoints = open_checkpoints(keep_latest=2)
    accuracy = {1: 0.5, 2: 0.9, 3: 0.7, 4: None, 5: 0.6}
    for step, value in accuracy.items():
        metrics = None if value is None else {"accuracy": value, "loss": 1.0}
        checkpoints.save(at_step(step), META, metrics)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    reopened = open_checkpoints(keep_latest=2)
    assert reopened.steps() == [2, 4, 5]
    assert reopened.best_step() == 2
    reopened.save(at_step(6), META, {"accuracy": 0.8})
    reopened.wait()
    assert reopened.steps() == [2, 5, 6]
    assert reopened.best_step() == 2
    reopened.save(at_step(7), META, {"accuracy": 0.95})
    reopened.wait()
    assert reopened.steps() == [6, 7]
    assert reopened.best_step() == 7


def test_of_equally_good_checkpoints_the_newer_is_best_and_kept(open_checkpoints):
    checkpoints = open_checkpoints(keep_latest=1)
    for step, value in {1: 0.9, 2: 0.9, 3: 0.1}.items():
        checkpoints.save(at_step(step), META, {"accuracy": value})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.best_step() == 2


def test_without_evaluations_the_newest_checkpoint_is_best(open_checkpoints):
    checkpoints = open_checkpoints()
    assert checkpoints.steps() == []
    assert checkpoints.best_step() is None
    for step in (1, 2):
        checkpoints.save(at_step(step), META, None)
    checkpoints.wait()
    assert checkpoints.best_step() == 2


def test_a_saved_step_is_not_saved_again(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(at_step(3), META, {"accuracy": 0.5})
    checkpoints.save(at_step(3), META | {"classes": ["other"]}, None)
    checkpoints.wait()
    assert checkpoints.meta(3)["classes"] == ["cat", "dog"]


@pytest.fixture
def saved(open_checkpoints):
    """Returns the checkpoints of the steps 1 and 2."""
    checkpoints = open_checkpoints()
    for step in (1, 2):
        checkpoints.save(at_step(step), META, {"accuracy": 0.5})
    checkpoints.wait()
    return checkpoints


def flip_bit(path, position):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_the_arrays_is_detected(open_checkpoints, tmp_path, position):
    # Large arrays are used, because small ones are in the index, which has a checksum.
    checkpoints = open_checkpoints()
    for step in (1, 2):
        checkpoints.save(at_step(step, width=128), META, None)
    checkpoints.wait()
    files = (tmp_path / "checkpoints" / "2" / "state").rglob("d/*")
    largest = max(files, key=lambda path: path.stat().st_size)
    flip_bit(largest, int(position * largest.stat().st_size))
    with pytest.raises(
        DamagedCheckpoint, match=r"step 2: .* differs from its checksum"
    ):
        checkpoints.restore(2, like(width=128))
    assert_same_bits(checkpoints.restore(1, like(width=128)), at_step(1, width=128))


def test_the_error_names_the_part_whose_checksum_differs(saved, tmp_path):
    (path,) = (tmp_path / "checkpoints" / "2" / "meta").glob("metadata")
    meta = json.loads(path.read_text())
    meta["checksums"]["opt_state"] += 1
    path.write_text(json.dumps(meta))
    with pytest.raises(DamagedCheckpoint, match="step 2: opt_state differs"):
        saved.restore(2, like())
    saved.restore_eval_variables(2, like())
    # A flipped bit may also change a name.
    meta["checksums"]["emb"] = meta["checksums"].pop("ema")
    path.write_text(json.dumps(meta))
    with pytest.raises(DamagedCheckpoint, match="step 2: ema differs"):
        saved.restore_eval_variables(2, like())


@pytest.mark.parametrize("gone", ["meta", "state", "state/d", "state/_METADATA"])
def test_an_incomplete_checkpoint_is_detected_and_can_be_moved(saved, tmp_path, gone):
    path = tmp_path / "checkpoints" / "2" / gone
    path.rename(tmp_path / "gone")
    with pytest.raises(DamagedCheckpoint, match="step 2"):
        saved.restore(2, like())
    saved.move(2, tmp_path / "damaged")
    assert (tmp_path / "damaged").is_dir()
    assert saved.steps() == [1]
    saved.save(at_step(2), META, None)
    saved.wait()
    assert_same_bits(saved.restore(2, like()), at_step(2))


def test_an_empty_step_directory_is_damaged(open_checkpoints, tmp_path):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    checkpoints = open_checkpoints()
    with pytest.raises(DamagedCheckpoint, match="step 5"):
        checkpoints.restore(5, like())


@pytest.mark.parametrize("content", [b"{accuracy", b"{}", b"[]", b"\xff\xfe"])
def test_a_checkpoint_with_damaged_meta_has_no_rank(
    tmp_path, open_checkpoints, content
):
    checkpoints = open_checkpoints()
    for step, accuracy in {1: 0.5, 2: 0.9}.items():
        checkpoints.save(at_step(step), META, {"accuracy": accuracy})
    checkpoints.wait()
    (tmp_path / "checkpoints" / "2" / "meta" / "metadata").write_bytes(content)
    reopened = open_checkpoints()
    assert reopened.best_step() == 1
    with pytest.raises(DamagedCheckpoint, match="step 2"):
        reopened.restore(2, like())


def test_a_checkpoint_of_another_architecture_is_refused_by_name(saved):
    with pytest.raises(InputError) as wider:
        saved.restore_eval_variables(2, like(width=25))
    text = str(wider.value)
    assert "step 2 belongs to another architecture" in text
    assert (
        "ema/params/dense/kernel: (24, 24) in the checkpoint, (25, 25) in the model"
        in text
    )
    with pytest.raises(InputError, match="batch_stats/norm/mean: not in the model"):
        saved.restore_eval_variables(2, like(with_batch_norm=False))
    renamed = like()
    renamed.ema["params"]["head"] = renamed.ema["params"].pop("dense")
    with pytest.raises(InputError) as other:
        saved.restore_eval_variables(2, renamed)
    assert "ema/params/head/bias: not in the checkpoint" in str(other.value)
    assert "ema/params/dense/bias: not in the model" in str(other.value)
    with pytest.raises(InputError, match=r"; and 2 more$"):
        saved.restore(2, like(width=25))


def test_a_moving_average_missing_in_the_checkpoint_is_an_error(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(at_step(1, with_ema=False), META, None)
    checkpoints.wait()
    with pytest.raises(InputError, match=r"ema/.*: not in the checkpoint"):
        checkpoints.restore(1, like(with_ema=True))


def test_the_checksum_depends_on_names_values_and_order():
    a, b = jnp.arange(6.0), jnp.arange(6.0, 12.0)
    key = jax.random.key(1)
    trees = [
        {"a": a, "b": b},
        {"a": b, "b": a},
        {"a": a, "c": b},
        {"a": a, "b": {"b": b}},
        {"a": a.at[5].set(5.0000005), "b": b},
        {"a": -a, "b": b},
        {"a": a},
        {"a": jax.random.key(2)},
        {"a": key},
    ]
    assert len({checksum(tree) for tree in trees}) == len(trees)
    assert checksum({"b": b, "a": np.arange(6.0, dtype=np.float32)}) == checksum(
        {"a": a, "b": parallel.replicate(b)}
    )


def test_every_kind_of_array_has_a_checksum():
    step, empty = jnp.int32(3), jnp.zeros((0, 3))
    half = jnp.array([1.5, -2.0], jnp.bfloat16)
    assert checksum(step) != checksum(step + 1)
    assert checksum({"a": half}) != checksum({"a": half * 2})
    assert checksum({"a": empty}) != checksum({"b": empty})


@pytest.mark.parametrize("name", ["a b", "{x}", "a%41#b", "\u00e4|\u4e2d", "~x:y"])
def test_unusual_names_of_folders_can_be_used(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    made = Checkpoints(folder, monitor="accuracy")
    made.save(at_step(3), META, {"accuracy": 0.5})
    made.close()
    made = Checkpoints(folder, read_only=True)
    assert int(made.restore(3, like()).step) == 3
    made.close()


def test_a_checkpoint_that_cannot_be_read_is_a_failed_save(tmp_path):
    """Orbax writes into such a folder, but does not find what it has written."""
    made = Checkpoints(tmp_path / "exp[1]", monitor="accuracy")
    made.save(at_step(3), META, {"accuracy": 0.5})
    with pytest.raises(SaveFailed, match="its index cannot be read"):
        made.wait()
    made.close()


def test_the_next_save_finds_an_unreadable_checkpoint(open_checkpoints, monkeypatch):
    made = open_checkpoints()
    made.save(at_step(3), META, {"accuracy": 0.5})
    monkeypatch.setattr(made, "_stored_parts", lambda step: {"step"})
    with pytest.raises(SaveFailed, match="its index lacks batch_stats, ema"):
        made.save(at_step(4), META, {"accuracy": 0.5})


def test_a_store_that_is_damaged_after_the_first_save_is_found(
    open_checkpoints, tmp_path
):
    made = open_checkpoints()
    for step in (3, 4):
        made.save(at_step(step), META, {"accuracy": 0.5})
        made.wait()
    assert made._stored_parts(4) == made._saving_parts
    manifest = tmp_path / "checkpoints/4/state/manifest.ocdbt"
    manifest.write_bytes(b"damaged")
    with pytest.raises(DamagedCheckpoint, match="its store cannot be read"):
        made._stored_parts(4)


def test_checking_a_checkpoint_keeps_no_memory(open_checkpoints):
    """Orbax's index of a checkpoint keeps 2 MiB each time that it is read."""
    made = open_checkpoints()
    made.save(at_step(3), META, {"accuracy": 0.5})
    made.wait()

    def resident_mib():
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    for _ in range(5):
        made._check_readable(3)
    before = resident_mib()
    for _ in range(40):
        made._check_readable(3)
    assert resident_mib() - before < 20


def test_the_step_inside_of_a_folder_counts(open_checkpoints, tmp_path):
    made = open_checkpoints()
    made.save(at_step(3), META, {"accuracy": 0.5})
    made.wait()
    (tmp_path / "checkpoints/3").rename(tmp_path / "checkpoints/30")
    made = open_checkpoints()
    for read in (made.restore, made.restore_eval_variables):
        with pytest.raises(DamagedCheckpoint, match="its folder contains step 3"):
            read(30, like())
