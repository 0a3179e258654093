"""Fine-tuning: which parts of a model train, from which step on, and how fast.

A part is the beginning of a parameter's path, such as `"backbone"` or
`"backbone/stage1"`. Where several parts match a path, the longest is used.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from fpn_jax.errors import InputError, unknown

NEVER = math.inf


@dataclasses.dataclass(frozen=True)
class Phase:
    """Consecutive steps of a run in which the same parts train.

    Attributes:
      start_step: First step of the phase.
      freeze: Pairs of a part and the step at which it begins to train; parts whose step
        is after `start_step` are frozen.
      frozen_norm: Whether the backbone's BatchNorm uses its stored statistics without
        updating them.
    """

    start_step: int
    freeze: tuple[tuple[str, float], ...]
    frozen_norm: bool

    def frozen(self, path: str) -> bool:
        """Returns whether the parameter of a path is frozen."""
        return longest(path, dict(self.freeze), 0) > self.start_step


def phases(freeze: Mapping[str, float], frozen_norm_steps: int) -> tuple[Phase, ...]:
    """Returns the phases of a run, in order; the first starts at step 0.

    Args:
      freeze: Part → step at which it begins to train; `NEVER` keeps it frozen.
      frozen_norm_steps: Steps with the stored statistics; 0 for none, −1 for all.

    Raises:
      InputError: `frozen_norm_steps` is below −1, or a step is not a whole number.

    With AdamW, a part that begins to train late moves fast at first, because its second
    moment has averaged few gradients: give it a learning-rate multiplier below 1.
    """
    if frozen_norm_steps < -1:
        raise InputError(
            f"finetune.frozen_norm_steps is {frozen_norm_steps}; it must be a number "
            "of steps, or -1 for all steps"
        )
    for part, step in freeze.items():
        if step != NEVER and step != int(step):
            raise InputError(
                f"finetune.freeze has {part!r} until step {step}; it must be a whole "
                "number"
            )
    norm_until = NEVER if frozen_norm_steps == -1 else frozen_norm_steps
    starts = {0, *freeze.values(), norm_until} - {NEVER}
    return tuple(
        Phase(int(start), tuple(freeze.items()), start < norm_until)
        for start in sorted(starts)
    )


def phase_at(all_phases: Sequence[Phase], step: int) -> Phase:
    """Returns the phase of a step, counted from 0."""
    return max(
        (phase for phase in all_phases if phase.start_step <= step),
        key=lambda phase: phase.start_step,
    )


def parse(key: str, entries: Sequence[str], *, bare: float | None) -> dict[str, float]:
    """Returns part → number of entries such as `"backbone/stage1=0.1"`.

    Args:
      key: The key of the config, for error messages.
      entries: `NAME=NUMBER`, or `NAME` alone.
      bare: Number for `NAME` alone; None refuses it.

    Raises:
      InputError: An entry has another form, or a name is given twice.

    Example:
      >>> parse("freeze", ("backbone/stem", "backbone=200"), bare=math.inf)
      {'backbone/stem': inf, 'backbone': 200.0}
    """
    parsed: dict[str, float] = {}
    form = "NAME=NUMBER" if bare is None else "NAME or NAME=STEP"
    for entry in [entries] if isinstance(entries, str) else entries:
        name, equals, number = str(entry).partition("=")
        try:
            value = float(number) if equals or bare is None else bare
        except ValueError:
            value = -1.0
        if not name or not value >= 0:
            raise InputError(
                f"{key} has {entry!r}; an entry is {form}, as 'backbone/stage1=100', "
                "with a number of 0 or more"
            )
        if name in parsed:
            raise InputError(f"{key} has {name!r} twice")
        parsed[name] = value
    return parsed


def longest(path: str, numbers: Mapping[str, float], otherwise: float) -> float:
    """Returns the number of the longest part that matches a path.

    Args:
      path: Path of a parameter.
      numbers: Part → number.
      otherwise: Number where no part matches.

    Example:
      >>> longest("backbone/stage1/conv", {"backbone": 2, "backbone/stage1": 3}, 1)
      3
      >>> longest("backbone/stage10/conv", {"backbone/stage1": 3}, 1)
      1
    """
    fitting = [part for part in numbers if f"{path}/".startswith(f"{part}/")]
    return numbers[max(fitting, key=len)] if fitting else otherwise


def name_of(path: tuple[Any, ...]) -> str:
    """Returns a leaf's path as `"backbone/stem/conv/kernel"`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_parts(key: str, numbers: Mapping[str, float], params: Any) -> None:
    """Refuses a part that matches no parameter.

    Args:
      key: The key of the config, for error messages.
      numbers: Part → number.
      params: Parameters, or their shapes.

    Raises:
      InputError: Names the part and the choices.
    """
    paths = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in numbers:
        if not any(f"{path}/".startswith(f"{part}/") for path in paths):
            shown = {"/".join(path.split("/")[:2]) for path in paths}
            shown |= {path.split("/")[0] for path in paths}
            raise unknown(f"{key}: the part", part, sorted(shown))


def frozen_mask(phase: Phase, params: Any) -> Any:
    """Returns True for every leaf that is frozen in the phase."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: phase.frozen(name_of(path)), params
    )


def scale_parts(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of parts, which multiplies their learning rates.

    "Discriminative fine-tuning" (Howard & Ruder, arXiv 1801.06146).

    Args:
      multipliers: Part → factor; the factor of all other parameters is 1.
    """

    def scale(updates, _):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * longest(name_of(path), multipliers, 1.0), updates
        )

    return optax.stateless(scale)


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """Which parts of a model train, from which step on, and how fast.

    Attributes:
      freeze: Part → step from which it trains; `NEVER` for one that does not.
      multipliers: Part → factor of its learning rate.
      frozen_norm_steps: Steps in which the backbone's batch normalization keeps its
        stored statistics; 0 for none, −1 for all.
    """

    freeze: Mapping[str, float]
    multipliers: Mapping[str, float]
    frozen_norm_steps: int

    @classmethod
    def parse(
        cls,
        freeze: Sequence[str],
        learning_rate_multipliers: Sequence[str],
        frozen_norm_steps: int,
    ) -> "FineTuning":
        """Returns the fine-tuning of the dict `finetune` of a config.

        Args:
          freeze: Entries `PART` or `PART=STEP`.
          learning_rate_multipliers: Entries `PART=FACTOR`.
          frozen_norm_steps: See above.

        Raises:
          InputError: An entry has another form.
        """
        key = "finetune.learning_rate_multipliers"
        return cls(
            parse("finetune.freeze", freeze, bare=NEVER),
            parse(key, learning_rate_multipliers, bare=None),
            frozen_norm_steps,
        )

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the run, in order."""
        return phases(self.freeze, self.frozen_norm_steps)

    def check_parts(self, params: Any) -> None:
        """Refuses to freeze or to scale a part that the model does not have.

        Args:
          params: Its parameters, or their shapes.

        Raises:
          InputError: Names the part and the choices.
        """
        check_parts("finetune.freeze", self.freeze, params)
        check_parts("finetune.learning_rate_multipliers", self.multipliers, params)

    def check_freezing(
        self, total_steps: int, *, pretrained: bool, has_norm: bool
    ) -> None:
        """Refuses freezing that has no effect, or that keeps random parameters.

        Args:
          total_steps: Length of the run.
          pretrained: Whether the run begins with weights.
          has_norm: Whether the backbone has batch normalization.

        Raises:
          InputError: Names the key.
        """
        norm_steps = self.frozen_norm_steps
        norms = {"finetune.frozen_norm_steps": norm_steps} if norm_steps else {}
        parts = {f"finetune.freeze of {p!r}": step for p, step in self.freeze.items()}
        for key, step in (norms | parts).items():
            if not pretrained:
                raise InputError(
                    f"{key} freezes randomly initialised weights: set "
                    "--config.pretrained.path to a file of weights or to the workdir "
                    "of a run"
                )
            if total_steps <= step < NEVER:
                raise InputError(
                    f"{key} ends at step {step:.0f}, but the run has {total_steps} "
                    "steps; give an earlier step, or none to freeze for the whole run"
                )
        if norms and not has_norm:
            raise InputError(
                f"finetune.frozen_norm_steps is {norm_steps}, but the backbone has no "
                "batch normalization; give 0"
            )
