"""Any input works or raises a documented error: `hypothesis` looks for other errors.

`FUZZ=10 pytest tests/faults/test_fuzz.py` tries ten times as many values.
"""

import contextlib
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fpn_jax.data import augmentation, pipeline
from fpn_jax.data.images import decode
from fpn_jax.data.records import SourceInfo, printable
from fpn_jax.data.sources.folder import FolderSource
from fpn_jax.errors import InputError
from fpn_jax.experiment import Experiment
from fpn_jax.parts import source
from tests.conftest import tiny

# Every run tries the same examples, so that a failure can be reproduced.
SCALE = int(os.environ.get("FUZZ", "1"))
EXAMPLES = settings(
    derandomize=True, deadline=None, database=None, max_examples=40 * SCALE
)

NUMBERS = st.one_of(
    st.integers(-3, 40), st.integers(-(2**70), 2**70), st.sampled_from([2**16, 2**31])
)
FLOATS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-2, 2), st.just(0.0)
)
WORDS = st.one_of(
    st.text(max_size=9), st.sampled_from(["none", "batch", "fpn", "conv"])
)
VALUES = {
    **dict.fromkeys(
        (
            "data__image_size",
            "data__global_batch_size",
            "data__num_threads",
            "data__num_workers",
            "data__source__train_records",
            "data__source__validate_records",
            "backbone__width",
            "neck__width",
            "neck__extra_levels",
            "train__total_steps",
            "train__seed",
            "train__evaluate_every_steps",
            "train__log_every_steps",
            "train__accumulation_steps",
            "train__early_stopping_evaluations",
            "train__keep_checkpoints",
            "optimizer__warmup_steps",
            "augment__randaugment_layers",
            "finetune__frozen_norm_steps",
        ),
        NUMBERS,
    ),
    **dict.fromkeys(
        (
            "data__crop_fraction",
            "augment__flip",
            "augment__brightness",
            "augment__hue",
            "augment__erasing",
            "augment__randaugment_magnitude",
            "mix__mixup_alpha",
            "mix__cutmix_alpha",
            "mix__probability",
            "head__dropout",
            "task__label_smoothing",
            "optimizer__learning_rate",
            "optimizer__weight_decay",
            "optimizer__clip_norm",
            "train__ema_decay",
        ),
        FLOATS,
    ),
    **dict.fromkeys(
        (
            "data__on_bad_file",
            "backbone__name",
            "neck__name",
            "neck__extra",
            "neck__upsampling",
            "neck__context",
            "neck__norm",
            "head__name",
            "head__pool",
            "model__dtype",
            "optimizer__name",
            "train__on_nonfinite_step",
        ),
        WORDS,
    ),
    "finetune__freeze": st.lists(WORDS, max_size=2).map(tuple),
    "augment__crop_scale": st.tuples(FLOATS, FLOATS),
    "model__mean": st.tuples(FLOATS, FLOATS, FLOATS),
    "task__class_weights": st.lists(FLOATS, max_size=3).map(tuple),
}
"""Key of the config → values of its type."""


def prepare(config):
    """Does everything that a training does before its first step."""
    records = source(config, "train")
    validate = source(config, "validate")
    Experiment(config, records.info).prepare(records, validate)


@pytest.mark.parametrize("key", VALUES)
def test_a_value_of_the_config_works_or_is_refused(key):
    @settings(EXAMPLES, max_examples=2 * SCALE)
    @given(value=VALUES[key])
    def check(value):
        with contextlib.suppress(InputError):
            prepare(tiny(**{key: value}))

    check()


AUGMENT = tiny().augment.to_dict() | {"crop_scale": (0.1, 1.0), "hue": 0.1}
SIDES = st.one_of(
    st.integers(1, 40), st.sampled_from([1, 2, 3, 255, 256, 257, 4096, 4097])
)


@EXAMPLES
@given(height=SIDES, width=st.integers(1, 40), flipped=st.booleans(), seed=NUMBERS)
def test_every_size_of_image_is_decoded_and_cropped(height, width, flipped, seed):
    if flipped:
        height, width = width, height
    rng = np.random.default_rng(abs(seed))
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    np.testing.assert_array_equal(decode.decode(file.getvalue()), pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    encoded = decode.open_encoded(file.getvalue())
    assert encoded.shape == (height, width, 3)
    for image in (pixels, encoded):
        train = augmentation.build_train(32, **AUGMENT)
        cropped = train({"image": image}, rng)["image"]
        assert (cropped.shape, cropped.dtype) == ((32, 32, 3), np.uint8)
    evaluated = augmentation.build_eval(32, 0.875)({"image": pixels})["image"]
    assert (evaluated.shape, evaluated.dtype) == ((32, 32, 3), np.uint8)


@EXAMPLES
@given(
    content=st.binary(max_size=300),
    magic=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]
    ),
)
def test_bytes_are_decoded_or_refused(content, magic):
    try:
        image = decode.decode(magic + content)
    except ValueError:
        return
    assert image.ndim == 3


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1
)


@EXAMPLES
@given(name=NAMES)
def test_a_printable_name_is_one_line_of_text(name):
    shown = printable(name)
    assert shown.encode("utf-8")
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()


@settings(EXAMPLES, max_examples=20 * SCALE)
@given(names=st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_class_names_are_used_unchanged_or_refused(names, tmp_path_factory):
    root = tmp_path_factory.mktemp("classes")
    made = []
    for name in names:
        try:
            (root / "Train" / name).mkdir(parents=True)
        except (OSError, UnicodeEncodeError):
            # The file system does not allow this name, or it is `.`.
            continue
        made.append(name)
        for number in range(2):
            Image.new("RGB", (4, 4)).save(root / "Train" / name / f"{number}.png")
    try:
        records = FolderSource(root, "train", validate_fraction=1e-9)
    except InputError:
        visible = [name for name in made if not name.startswith(".")]
        assert len(visible) < 2 or any(printable(name) != name for name in visible)
        return
    assert set(records.info.classes) == {n for n in made if not n.startswith(".")}
    assert len(records) == 2 * len(records.info.classes)


class Numbers:
    """A source of black images."""

    info = SourceInfo(("cat", "dog"), ("label",))

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"image": np.zeros((2, 2, 3), np.uint8), "label": index % 2}

    def id(self, index):
        return str(index)


@settings(EXAMPLES, max_examples=15 * SCALE)
@given(records=st.integers(1, 40), share=st.integers(1, 5), processes=st.integers(1, 4))
def test_an_evaluation_reads_every_record_once(records, share, processes):
    seen, lengths = [], set()
    for process in range(processes):
        options = pipeline.Options(
            num_threads=1, process_index=process, process_count=processes
        )
        batches = pipeline.eval_batches(
            Numbers(records),
            lambda record: record,
            image_size=2,
            global_batch_size=share * processes,
            options=options,
        )
        read = list(batches)
        batches.close()
        lengths.add(len(read))
        for batch in read:
            assert len(batch["index"]) == share
            seen += batch["index"][batch["weight"] > 0].tolist()
    assert len(lengths) == 1
    assert sorted(seen) == list(range(records))
