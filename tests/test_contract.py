"""A task that a training could not use to its end is refused before it begins."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import pytest

from fpn_jax import contract
from fpn_jax.data.records import SourceInfo
from fpn_jax.errors import InputError
from fpn_jax.metrics import average_precision, sums
from fpn_jax.tasks import TASKS, Classification
from fpn_jax.tasks.base import Task
from fpn_jax.tasks.fcos import FCOSDetection
from fpn_jax.views import VIEWS
from tests.conftest import prepared, tiny
from tests.tasks.test_fcos import SIZE, predictions

INFO = SourceInfo(classes=("cat", "dog"), fields=("label",))
PREDICTIONS = {"logits": jnp.zeros((1, 2))}


def check(task, predictions=PREDICTIONS):
    contract.check("mine", task, predictions, (32, 32), INFO)


@dataclasses.dataclass(frozen=True)
class Changed(Classification):
    """Classification with a fault."""

    num_classes: int = 2
    loss: object = None
    answer: object = None
    kept: object = None

    def losses(self, predictions, batch):
        usual = super().losses(predictions, batch)
        return usual if self.loss is None else self.loss(usual["cross_entropy"])

    def decode(self, predictions, image_size):
        usual = super().decode(predictions, image_size)
        return usual if self.answer is None else self.answer(usual)

    def keep(self, answer, batch):
        return super().keep(answer, batch) if self.kept is None else self.kept


class OtherKind(Changed):
    kind: ClassVar[str] = "clases"


class OtherMonitor(Changed):
    monitor: ClassVar[str] = "acuracy"


class OtherFraming(Changed):
    framing: ClassVar[str] = "square"


class OtherExports(Changed):
    exports: ClassVar[tuple[str, ...]] = ("probability",)


def test_every_task_of_the_package_fits_its_view():
    assert set(TASKS) >= {"classification"}
    check(Classification(2))
    for task in TASKS.values():
        assert task.kind in VIEWS
        assert Task in task.__mro__


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            OtherKind(),
            "kind of task 'mine' 'clases' is unknown; did you mean 'classes'",
        ),
        (OtherMonitor(), "monitors 'acuracy', but its metrics are accuracy, "),
        (OtherExports(), "exports probability, but it answers only label, prob"),
        (
            OtherFraming(),
            "framing of task 'mine' 'square' is unknown; choose one of crop",
        ),
        (
            Changed(kept={"index": PREDICTIONS["logits"]}),
            "keeps index, which evaluation",
        ),
        (Changed(loss=lambda x: {}), "must return a dict"),
        (Changed(loss=lambda x: x), "must return a dict"),
        (
            Changed(loss=lambda x: {"a": x[:, None]}),
            r"'a' is float32 \[1, 1\]",
        ),
        (
            Changed(loss=lambda x: {"a": x.sum()}),
            r"'a' is float32 \[\]; it must",
        ),
        (
            Changed(loss=lambda x: {"a": x.astype(jnp.int32)}),
            r"'a' is int32 \[1\]; it must be one floating number",
        ),
        (Changed(loss=lambda x: x["b"]), "losses fails"),
        (
            Changed(answer=lambda a: {"mask": a["label"]}),
            r"keep fails \(KeyError: 'label'\)",
        ),
        (
            Changed(answer=lambda a: {"mask": a["label"]}, kept={"a": jnp.zeros(1)}),
            "the view 'classes' needs label, probabilities, but task 'mine' answers",
        ),
        (
            Changed(kept={}),
            "needs label, predicted, probabilities, but .* nothing",
        ),
    ],
)
def test_faults_of_a_task_are_named(task, says):
    with pytest.raises(InputError, match=says):
        check(task)


def test_faults_of_a_head_are_named():
    with pytest.raises(InputError, match="reads logits, but the head returns only map"):
        check(Classification(2), {"map": jnp.zeros((1, 4))})
    with pytest.raises(InputError, match="must return a dict of predictions"):
        check(Classification(2), jnp.zeros((1, 2)))


def test_a_monitor_may_come_from_all_rows():
    class Ranked(OtherMonitor):
        def summarize(self, rows):
            return {"acuracy": float(sums.Mean is not None)}

    check(Ranked())


def test_the_shapes_of_the_first_state_are_those_that_are_trained():
    made = prepared(tiny(), records=96)
    first = made.initial()
    assert made.like.params.keys() == first.params.keys()
    assert made.like.step.shape == first.step.shape


def test_a_package_that_the_summary_needs_is_missed_before_the_training(monkeypatch):
    def absent():
        raise InputError("pycocotools is not installed")

    found = predictions(1)
    info = SourceInfo(("cat", "dog", "cow"), ("boxes", "box_labels", "box_crowd"))
    contract.check("fcos", FCOSDetection(3), found, SIZE, info)
    monkeypatch.setattr(average_precision, "require", absent)
    with pytest.raises(InputError, match="pycocotools is not installed"):
        contract.check("fcos", FCOSDetection(3), found, SIZE, info)
