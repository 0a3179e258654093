"""Builds and checks everything that a config names, once, before a run begins.

A config passes through `command_line → resolve → Experiment.prepare → modes`. No code
reads its values after `prepare`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fpn_jax import contract
from fpn_jax.config import Config
from fpn_jax.data import augmentation, pipeline
from fpn_jax.data.crops import Letterbox, ResizeAndCenterCrop
from fpn_jax.data.records import Source, SourceInfo
from fpn_jax.errors import InputError
from fpn_jax.model import PyramidModel
from fpn_jax.ops import mixing
from fpn_jax.parts import build_model, build_task, read_options
from fpn_jax.pyramid import is_aligned
from fpn_jax.tasks.base import Predictions, Task
from fpn_jax.train import finetune, loop, optimizer, parallel, state, steps
from fpn_jax.train.evaluation import Evaluation
from fpn_jax.train.evaluation import evaluate as evaluate_batches
from fpn_jax.train.finetune import FineTuning
from fpn_jax.train.plan import Plan


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config and its data determine, before training begins.

    Attributes:
      config: The resolved config.
      info: Classes, fields and landmarks of the data.
    """

    config: Config
    info: SourceInfo

    @functools.cached_property
    def task(self) -> Task:
        """The task."""
        return build_task(self.config, self.info)

    @functools.cached_property
    def model(self) -> PyramidModel:
        """The model."""
        return build_model(self.config, self.task)

    @functools.cached_property
    def eval_transform(self) -> ResizeAndCenterCrop | Letterbox:
        """A function: record of any image size → record that is evaluated."""
        data = self.config.data
        if self.task.framing == "letterbox":
            return Letterbox(data.image_size)
        return augmentation.build_eval(data.image_size, data.crop_fraction)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return (self.config.data.image_size,) * 2

    @functools.cached_property
    def eval_step(self) -> Callable:
        """The mapped evaluation step."""

        def keep(predictions: Predictions, batch: dict) -> dict[str, jax.Array]:
            answer = self.task.decode(predictions, self.image_size)
            return self.task.keep(answer, batch)

        return parallel.map_eval_step(
            steps.make_eval_step(self.model.apply, self.task.metrics, keep)
        )

    @functools.cached_property
    def fine_tuning(self) -> FineTuning:
        """Freezing and learning rate multipliers per module."""
        return FineTuning.parse(**self.config.finetune)

    def initial_state(
        self, transformation: optax.GradientTransformation
    ) -> state.TrainState:
        """Returns the state before the first step; works under jit and eval_shape.

        Args:
          transformation: The optimizer.
        """
        return self._initial(transformation)[0]

    def _initial(
        self, transformation: optax.GradientTransformation
    ) -> tuple[state.TrainState, Any]:
        """Returns the first state, and the predictions for one black image."""
        image = jnp.zeros((1, *self.image_size, 3), jnp.uint8)
        predictions = []

        def init(rng: jax.Array) -> state.Variables:
            returned, variables = self.model.init_with_output(rng, image, train=False)
            predictions.append(returned)
            return variables

        first = state.create(
            init,
            transformation,
            seed=self.config.train.seed,
            with_ema=self.config.train.ema_decay > 0,
        )
        return first, predictions[0]

    def evaluate(
        self, variables: Any, records: Source
    ) -> tuple[Evaluation, list[tuple[str, str]]]:
        """Evaluates a model on a split.

        Args:
          variables: The model's variables, `{"params": …, "batch_stats": …}`.
          records: The split.

        Returns:
          The evaluation, and `(id, reason)` of every bad file of the split.

        Raises:
          InputError: The batch size is no multiple of the number of devices, the split
            has other classes than the model, or none of its files can be decoded.
        """
        self._refuse_other_data(records)
        data = self.config.data
        parallel.batch_size_per_device(data.global_batch_size)
        batches = pipeline.eval_batches(
            records,
            self.eval_transform,
            image_size=data.image_size,
            global_batch_size=data.global_batch_size,
            fields=tuple(sorted(self.task.needs)),
            max_boxes=self.task.max_boxes,
            options=read_options(self.config),
        )
        try:
            evaluation = evaluate_batches(
                self.eval_step, variables, batches, self.task.summarize
            )
        finally:
            batches.close()
        if not len(evaluation.rows["index"]):
            raise InputError("none of the files of the split can be decoded")
        bad = map(int, evaluation.uncounted)
        known = batches.skipped
        return evaluation, [known.get(i) or pipeline.why_bad(records, i) for i in bad]

    def prepare(self, records: Source, validate: Source) -> "Prepared":
        """Builds everything that training needs, and checks that it fits together.

        Args:
          records: The training split.
          validate: The validation split.

        Raises:
          InputError: A value is invalid. The text names the key and the valid values.
        """
        self._refuse_other_data(validate)
        self._check_batch()
        train, batch_size = self.config.train, self.config.data.global_batch_size
        total_steps = train.total_steps
        if total_steps is None:
            total_steps = math.ceil(train.epochs * len(records) / batch_size)
        transformation, schedule = optimizer.build(
            self.config.optimizer.to_dict(),
            total_steps=total_steps,
            multipliers=self.fine_tuning.multipliers,
        )
        plan = Plan(
            total_steps=total_steps,
            evaluate_every_steps=(
                train.evaluate_every_steps or math.ceil(len(records) / batch_size)
            ),
            log_every_steps=train.log_every_steps,
            early_stopping_evaluations=train.early_stopping_evaluations,
            monitor=self.task.monitor,
            images_per_step=batch_size,
            learning_rate=schedule,
            on_nonfinite_step=train.on_nonfinite_step,
        )
        initial = functools.partial(self.initial_state, transformation)
        like, predictions = jax.eval_shape(lambda: self._initial(transformation))
        contract.check(
            self.config.task.name, self.task, predictions, self.image_size, self.info
        )
        self._check_norm(like)
        self._check_places()
        self.fine_tuning.check_parts(like.params)
        self.fine_tuning.check_freezing(
            total_steps,
            pretrained=bool(self.config.pretrained.path),
            has_norm=bool(like.batch_stats.get("backbone")),
        )
        # Build the transform now, so that invalid values are refused before training.
        _ = self.eval_transform
        return Prepared(
            experiment=self,
            plan=plan,
            initial=initial,
            like=like,
            step_at=self._step_at(transformation),
            batches_from=self._batches_from(records),
        )

    def _refuse_other_data(self, records: Source) -> None:
        """Refuses names that differ from the model's, of classes and of its fields."""
        compared = {
            "classes": "label",
            "landmark_names": "landmarks",
            "mirrored": "landmarks",
            "mask_classes": "mask",
        }
        for name, field in compared.items():
            data, model = getattr(records.info, name), getattr(self.info, name)
            needed = name == "classes" or field in self.task.needs
            if needed and tuple(data) != tuple(model):
                raise InputError(
                    f"the data has the {name.replace('_', ' ')} "
                    f"{', '.join(map(str, data))}, but the model has "
                    f"{', '.join(map(str, model))}"
                )

    def _check_batch(self) -> None:
        config = self.config
        per_device = parallel.batch_size_per_device(config.data.global_batch_size)
        accumulation = config.train.accumulation_steps
        if per_device % accumulation:
            raise InputError(
                f"train.accumulation_steps is {accumulation}; it must divide the "
                f"{per_device} images of each device"
            )
        if self._mixes and not self.task.mixable:
            raise InputError(
                f"Mixup and CutMix are not meaningful for task {config.task.name!r}: "
                "set mix.mixup_alpha and mix.cutmix_alpha to 0"
            )
        if self._mixes and per_device == accumulation:
            raise InputError(
                "Mixup and CutMix have no effect on one image at a time: increase "
                "data.global_batch_size, or set mix.mixup_alpha and mix.cutmix_alpha "
                "to 0"
            )

    def _check_norm(self, like: state.TrainState) -> None:
        """Refuses batch normalization over a single value for each channel."""
        data, train = self.config.data, self.config.train
        replicas = jax.device_count()
        if data.global_batch_size > replicas * train.accumulation_steps:
            # With two images there are at least two values.
            return
        images = jnp.zeros((replicas, 1, *self.image_size, 3), jnp.uint8)
        for phase in self.fine_tuning.phases:
            forward = functools.partial(
                self.model.clone(frozen_norm=phase.frozen_norm).apply,
                train=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=["batch_stats"],
            )
            mapped = jax.vmap(forward, (None, 0), axis_name=steps.AXIS)
            jax.eval_shape(mapped, like.variables, images)

    def _check_places(self) -> None:
        """Refuses a backbone whose cells do not lie where a task reads places."""
        backbone = self.model.backbone
        offset = backbone.cell_offset(self.image_size)
        if self.task.places and not is_aligned(offset):
            raise InputError(
                f"task {self.config.task.name!r} reads places, but with backbone."
                f"padding {backbone.padding!r} the cells do not lie where their levels "
                f"say; choose another of {', '.join(backbone.paddings)}"
            )

    @property
    def _mixes(self) -> bool:
        return bool(self.config.mix.mixup_alpha or self.config.mix.cutmix_alpha)

    def _step_at(
        self, transformation: optax.GradientTransformation
    ) -> Callable[[int], loop.StepFn]:
        """Returns a function: number of steps taken → the next mapped train step."""
        phases = self.fine_tuning.phases
        mapped = {phase: self._train_step(transformation, phase) for phase in phases}
        return lambda step: mapped[finetune.phase_at(phases, step)]

    def _train_step(
        self, transformation: optax.GradientTransformation, phase: finetune.Phase
    ) -> loop.StepFn:
        train, mix = self.config.train, functools.partial(mixing.mix, **self.config.mix)
        # Trace `mix` now, so that invalid values are refused before training.
        jax.eval_shape(mix, jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
        frozen = functools.partial(finetune.frozen_mask, phase)
        return parallel.map_train_step(
            steps.make_train_step(
                self.model.clone(frozen_norm=phase.frozen_norm).apply,
                self.task.losses,
                transformation,
                mix=mix if self._mixes else None,
                accumulation_steps=train.accumulation_steps,
                ema_decay=train.ema_decay,
                frozen=frozen if self.fine_tuning.freeze else None,
                skip_nonfinite=train.on_nonfinite_step == "skip",
            )
        )

    def _batches_from(self, records: Source) -> Callable[[int], pipeline.Batches]:
        data = self.config.data
        return pipeline.train_stream(
            records,
            augmentation.build_train(data.image_size, **self.config.augment),
            global_batch_size=data.global_batch_size,
            seed=self.config.train.seed,
            fields=tuple(sorted(self.task.needs)),
            max_boxes=self.task.max_boxes,
            options=read_options(self.config),
        )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that training needs, built and checked.

    Attributes:
      experiment: The experiment to train.
      plan: When the loop logs, evaluates, saves and ends.
      initial: Returns the state before the first step.
      like: Shapes of that state.
      step_at: Number of steps taken → the next mapped train step.
      batches_from: Step → this process's training batches from that step on.
    """

    experiment: Experiment
    plan: Plan
    initial: Callable[[], state.TrainState]
    like: state.TrainState
    step_at: Callable[[int], loop.StepFn]
    batches_from: Callable[[int], pipeline.Batches]
