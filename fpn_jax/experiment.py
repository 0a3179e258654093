"""From a config to a run: the only reader of a config's values."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from fpn_jax import backbones, heads, necks, weights
from fpn_jax import config as configs
from fpn_jax.data import augmentation, pipeline
from fpn_jax.data.records import SPLITS, Source
from fpn_jax.data.sources import SOURCES
from fpn_jax.errors import InputError, unknown
from fpn_jax.model import PyramidModel, check_image_size
from fpn_jax.ops import mixing
from fpn_jax.tasks.classification import Classification
from fpn_jax.train import finetune, loop, optimizer, parallel, state, steps
from fpn_jax.train.evaluation import Evaluation
from fpn_jax.train.evaluation import evaluate as evaluate_batches
from fpn_jax.train.plan import Plan

Config = ml_collections.FrozenConfigDict
ROOMS = {"backbone": backbones, "neck": necks, "head": heads}
DTYPES = ("float32", "bfloat16")
KEYS = {
    "": configs.Keys.exactly(
        *("data", "augment", "mix", "backbone", "neck", "head", "model", "task"),
        *("optimizer", "train", "pretrained", "finetune"),
    ),
    "data": configs.Keys.exactly(
        *("source", "root", "image_size", "global_batch_size", "crop_fraction"),
        *("on_bad_file", "background", "quick_decoding", "num_threads", "num_workers"),
        *configs.SOURCES,
    ),
    "data.drawn": configs.Keys.exactly(*(f"{s}_records" for s in SPLITS), "seed"),
    "data.folder": configs.Keys.of(
        SOURCES["folder"], given=("root", "split", "background", "encoded")
    ),
    "data.tfds": configs.Keys(
        frozenset(("name", "image_key", "label_key", "validate_fraction")),
        frozenset(("name",)),
    ),
    "augment": configs.Keys.of(augmentation.build_train, given=("image_size",)),
    "mix": configs.Keys.of(mixing.mix, given=("rng", "images")),
    "model": configs.Keys.exactly("dtype", "mean", "std"),
    "task": configs.Keys.of(Classification, given=("num_classes",)),
    "optimizer": configs.Keys.of(optimizer.build, given=("total_steps", "multipliers")),
    "pretrained": configs.Keys.exactly("path", "recipe", "parts"),
    "finetune": configs.Keys.exactly(
        "freeze", "learning_rate_multipliers", "frozen_norm_steps"
    ),
    "train": configs.Keys.exactly(
        *("total_steps", "epochs", "seed", "evaluate_every_steps", "log_every_steps"),
        *("accumulation_steps", "ema_decay", "early_stopping_evaluations"),
        *("keep_checkpoints", "on_nonfinite_step"),
    ),
}
"""Dict of a config → its keys, read off the constructors where there is one."""


def resolve(
    config: ml_collections.ConfigDict,
    overridden: frozenset[str],
    workdir: str | None = None,
) -> Config:
    """Returns the config of this run, complete and with nothing that has no effect.

    Args:
      config: From the config file and the command line.
      overridden: Dotted keys that the command line set.
      workdir: Where a run may have begun already; then the weights that it began with
        are not needed any more.

    Raises:
      InputError: A choice is unknown, or a key was set that has no effect.
    """
    accepts = {part: room.accepts for part, room in ROOMS.items()}
    resolved, notes = configs.resolve(config, overridden, accepts, KEYS)
    notes += weights.adopt(resolved, overridden, workdir)
    for note in notes:
        print(note)
    return configs.load(resolved)


def source(config: Config, split: str, *, encoded: bool = False) -> Source:
    """Returns the records of one split.

    Args:
      config: Names them.
      split: `train`, `validate` or `test`.
      encoded: Whether JPEGs may stay encoded, for a random crop to decode.

    Raises:
      InputError: The split or its files are not there; names what is.
    """
    data = config.data
    arguments = dict(data[data.source])
    if data.source == "tfds":
        arguments["dataset"] = arguments.pop("name")
    given = {
        "root": data.root,
        "image_size": data.image_size,
        "background": data.background,
        "encoded": encoded,
    }
    constructor = SOURCES[data.source]
    takes = inspect.signature(constructor).parameters
    given = {name: value for name, value in given.items() if name in takes}
    return constructor(split=split, **given, **arguments)


def read_options(config: Config) -> pipeline.Options:
    """Returns how this process reads records."""
    return pipeline.Options(
        on_bad_file=config.data.on_bad_file,
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def build_model(config: Config, num_classes: int) -> PyramidModel:
    """Returns the model that the config names.

    Raises:
      InputError: A name, an argument or a value is not understood.
    """
    if config.model.dtype not in DTYPES:
        raise unknown("model.dtype", config.model.dtype, DTYPES)
    given = {
        "dtype": jnp.dtype(config.model.dtype),
        "axis_name": steps.AXIS,
        "num_classes": num_classes,
    }
    parts = {}
    for part, room in ROOMS.items():
        arguments = dict(config[part])
        name = arguments.pop("name")
        taken = {key: given[key] for key in given if key in room.accepts(name)}
        parts[part] = room.build(name, **(arguments | taken))
    model = PyramidModel(**parts, mean=config.model.mean, std=config.model.std)
    size = config.data.image_size
    check_image_size((size, size), model.backbone.levels, model.neck.num_scales)
    return model


def check_numbers(config: Config) -> None:
    """Refuses numbers that no constructor sees.

    Raises:
      InputError: Names the number and those that would do.
    """
    train = config.train
    if train.keep_checkpoints < 1:
        raise InputError(
            f"train.keep_checkpoints is {train.keep_checkpoints}; it is 1 or more"
        )
    if not 0 <= train.seed < 2**31:
        raise InputError(f"train.seed is {train.seed}; it lies in 0 … 2**31 − 1")
    per_device = parallel.batch_size_per_device(config.data.global_batch_size)
    accumulation = config.train.accumulation_steps
    if accumulation < 1 or per_device % accumulation:
        raise InputError(
            f"train.accumulation_steps is {accumulation}, which does not divide the "
            f"{per_device} images of a device"
        )
    mixes = config.mix.mixup_alpha or config.mix.cutmix_alpha
    if mixes and per_device == accumulation:
        raise InputError(
            "mix has no effect on one image at a time: take a larger "
            "data.global_batch_size, or 0 for mix.mixup_alpha and mix.cutmix_alpha"
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config and its classes decide, before any of it runs.

    Attributes:
      config: The resolved config.
      classes: Names of the classes.
    """

    config: Config
    classes: tuple[str, ...]

    @functools.cached_property
    def model(self) -> PyramidModel:
        """The model."""
        return build_model(self.config, len(self.classes))

    @functools.cached_property
    def task(self) -> Classification:
        """What is learned."""
        return Classification(num_classes=len(self.classes), **self.config.task)

    @functools.cached_property
    def eval_transform(self):
        """Image of any size → the crop that is evaluated."""
        data = self.config.data
        return augmentation.build_eval(data.image_size, data.crop_fraction)

    @functools.cached_property
    def eval_step(self):
        """The mapped evaluation step."""
        return parallel.map_eval_step(
            steps.make_eval_step(self.model.apply, self.task.metrics)
        )

    @functools.cached_property
    def multipliers(self) -> dict[str, float]:
        """Part of the model → factor of its learning rate."""
        key = "learning_rate_multipliers"
        return finetune.parse(f"finetune.{key}", self.config.finetune[key], bare=None)

    @functools.cached_property
    def freeze(self) -> dict[str, float]:
        """Part of the model → step from which it trains."""
        return finetune.parse(
            "finetune.freeze", self.config.finetune.freeze, bare=finetune.NEVER
        )

    def check_parts(self, params: Any) -> None:
        """Refuses to freeze or to scale what the model does not have.

        Args:
          params: Its parameters, or their shapes.

        Raises:
          InputError: Names the part and the choices.
        """
        finetune.check_parts("finetune.freeze", self.freeze, params)
        finetune.check_parts(
            "finetune.learning_rate_multipliers", self.multipliers, params
        )

    def check_freezing(self, total_steps: int, like: state.TrainState) -> None:
        """Refuses freezing that has no effect, or that keeps random numbers.

        Args:
          total_steps: Length of the run.
          like: Shapes of the state before the first step.

        Raises:
          InputError: Names the key.
        """
        norm_steps = self.config.finetune.frozen_norm_steps
        norms = {"finetune.frozen_norm_steps": norm_steps} if norm_steps else {}
        parts = {f"finetune.freeze of {p!r}": step for p, step in self.freeze.items()}
        for key, step in (norms | parts).items():
            if not self.config.pretrained.path:
                raise InputError(
                    f"{key} would keep random numbers: there is no pretrained.path; "
                    "give a file of weights or the workdir of a run"
                )
            if total_steps <= step < finetune.NEVER:
                raise InputError(
                    f"{key} ends at step {step:.0f}, but the run has {total_steps} "
                    "steps; name an earlier one, or none to freeze all along"
                )
        if norms and not like.batch_stats.get("backbone"):
            raise InputError(
                f"finetune.frozen_norm_steps is {norm_steps}, but backbone "
                f"{self.config.backbone.name!r} has no batch normalization; give 0"
            )

    def optimizer(self, total_steps: int):
        """Returns the gradient transformation and the learning-rate schedule."""
        arguments = dict(self.config.optimizer)
        return optimizer.build(
            arguments.pop("name"),
            total_steps=total_steps,
            multipliers=self.multipliers,
            **arguments,
        )

    def train_step_at(self, transformation) -> Callable[[int], loop.StepFn]:
        """Returns number of steps taken → the mapped train step that comes next."""
        phases = finetune.phases(self.freeze, self.config.finetune.frozen_norm_steps)
        mapped = {phase: self._train_step(transformation, phase) for phase in phases}
        return lambda step: mapped[finetune.phase_at(phases, step)]

    def _train_step(self, transformation, phase: finetune.Phase) -> loop.StepFn:
        train, mix = self.config.train, functools.partial(mixing.mix, **self.config.mix)
        if not 0 <= train.ema_decay < 1:
            raise InputError(
                f"train.ema_decay is {train.ema_decay}; it lies in [0, 1), 0 is off"
            )
        # Refuses what is out of range now, and not when the first step is compiled.
        jax.eval_shape(mix, jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
        mixes = self.config.mix.mixup_alpha or self.config.mix.cutmix_alpha
        frozen = functools.partial(finetune.frozen_mask, phase)
        return parallel.map_train_step(
            steps.make_train_step(
                self.model.clone(frozen_norm=phase.frozen_norm).apply,
                self.task.loss,
                transformation,
                mix=mix if mixes else None,
                accumulation_steps=train.accumulation_steps,
                ema_decay=train.ema_decay,
                frozen=frozen if self.freeze else None,
                skip_nonfinite=train.on_nonfinite_step == "skip",
            )
        )

    def total_steps(self, records: int) -> int:
        """Returns the length of the run over a training split of so many records."""
        train = self.config.train
        if train.total_steps is not None:
            return train.total_steps
        return math.ceil(train.epochs * records / self.config.data.global_batch_size)

    def plan(self, records: int, learning_rate) -> Plan:
        """Returns when the loop does what.

        Args:
          records: Number of records in the training split.
          learning_rate: The optimizer's schedule.
        """
        train, batch_size = self.config.train, self.config.data.global_batch_size
        return Plan(
            total_steps=self.total_steps(records),
            evaluate_every_steps=(
                train.evaluate_every_steps or math.ceil(records / batch_size)
            ),
            log_every_steps=train.log_every_steps,
            early_stopping_evaluations=train.early_stopping_evaluations,
            monitor=self.task.monitor,
            images_per_step=batch_size,
            learning_rate=learning_rate,
            on_nonfinite_step=train.on_nonfinite_step,
        )

    def train_batches(self, records: Source, start_step: int) -> pipeline.Batches:
        """Returns this process's share of the training batches from a step on."""
        data = self.config.data
        return pipeline.train_batches(
            records,
            augmentation.build_train(data.image_size, **self.config.augment),
            global_batch_size=data.global_batch_size,
            seed=self.config.train.seed,
            start_step=start_step,
            options=read_options(self.config),
        )

    def initial_state(self, transformation) -> state.TrainState:
        """Returns the state before the first step; jit- and eval_shape-friendly."""
        size = self.config.data.image_size
        image = jnp.zeros((1, size, size, 3), jnp.uint8)
        return state.create(
            lambda rng: self.model.init(rng, image, train=False),
            transformation,
            seed=self.config.train.seed,
            with_ema=self.config.train.ema_decay > 0,
        )

    def evaluate(
        self, variables: Any, records: Source
    ) -> tuple[Evaluation, list[tuple[str, str]]]:
        """Returns the evaluation of a split, and `(id, reason)` of its bad files.

        Raises:
          InputError: Not one file decodes whole.
        """
        batches = pipeline.eval_batches(
            records,
            self.eval_transform,
            image_size=self.config.data.image_size,
            global_batch_size=self.config.data.global_batch_size,
            options=read_options(self.config),
        )
        try:
            evaluation = evaluate_batches(self.eval_step, variables, batches)
        finally:
            batches.close()
        if not len(evaluation.rows["index"]):
            raise InputError("not one file of the split decodes whole")
        bad = map(int, evaluation.left_out)
        met = batches.skipped
        return evaluation, [met.get(i) or pipeline.why_bad(records, i) for i in bad]
