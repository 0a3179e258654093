"""What a workdir holds, ready to use: to evaluate, to predict, to begin with."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fpn_jax import config as configs
from fpn_jax import pretrained
from fpn_jax.errors import InputError, unknown
from fpn_jax.experiment import Experiment
from fpn_jax.predict import Classifier
from fpn_jax.tasks.classification import Classification
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint
from fpn_jax.train.state import TrainState, Variables, with_variables


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a workdir holds, ready to use.

    Attributes:
      workdir: The folder it came from.
      experiment: The config it was trained with, and its classes.
      step: Step of the checkpoint.
      variables: What is evaluated and shipped.
    """

    workdir: Path
    experiment: Experiment
    step: int
    variables: Any

    def classifier(self) -> Classifier:
        """Returns the model as a function of images."""
        experiment, data = self.experiment, self.experiment.config.data

        def probabilities(images):
            apply = experiment.model.apply
            predictions = apply(self.variables, images, train=False)
            return jax.nn.softmax(predictions["logits"].astype(jnp.float32))

        return Classifier(
            jax.jit(probabilities),
            experiment.eval_transform,
            experiment.classes,
            data.image_size,
            tuple(data.background),
        )


def load(workdir: str, checkpoint: str) -> Trained:
    """Returns what a workdir holds.

    Args:
      workdir: Folder of a run.
      checkpoint: `"best"`, `"latest"`, or a step.

    Raises:
      InputError: There is no such checkpoint, or it does not read back whole.
    """
    directory = Path(workdir)
    if not (directory / "checkpoints").is_dir():
        raise InputError(
            f"--workdir={workdir} holds no checkpoint; train first: "
            f"--config=configs/fpn.py --workdir={workdir}"
        )
    checkpoints = Checkpoints(
        directory / "checkpoints", monitor=Classification.monitor, read_only=True
    )
    try:
        step = _chosen_step(checkpoints, checkpoint, workdir)
        experiment, like = _described(checkpoints.meta(step), workdir)
        variables = checkpoints.restore_eval_variables(step, like)
    except DamagedCheckpoint as error:
        raise InputError(f"{error}; choose another with --checkpoint") from error
    finally:
        checkpoints.close()
    return Trained(directory, experiment, step, variables)


def _described(meta: dict[str, Any], workdir: str) -> tuple[Experiment, TrainState]:
    """Returns what a checkpoint's config describes, and the shapes of its state."""
    try:
        config = configs.load(meta["config"])
        experiment = Experiment(config, tuple(meta["classes"]))
        # Nothing of an optimizer's state is restored, so none is needed.
        like = jax.eval_shape(lambda: experiment.initial_state(optax.identity()))
    except InputError:
        raise
    # The workdir may be a stranger's, and its config say anything.
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the config in --workdir={workdir} describes no model: {why}"
        ) from error
    return experiment, like


def _chosen_step(checkpoints: Checkpoints, checkpoint: str, workdir: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise InputError(f"--workdir={workdir} holds no checkpoint; train it first")
    if checkpoint == "best":
        return checkpoints.best_step()
    if checkpoint == "latest":
        return steps[-1]
    if not checkpoint.isdigit() or int(checkpoint) not in steps:
        raise unknown("--checkpoint", checkpoint, ["best", "latest", *map(str, steps)])
    return int(checkpoint)


def initial_weights(experiment: Experiment, like: TrainState) -> Variables:
    """Returns the variables to begin with, `{}` where all of them are random.

    Args:
      experiment: Its `pretrained` names the file or the run.
      like: Shapes of the state before the first step.

    Raises:
      InputError: They cannot be read, or are those of another model.
    """
    config = experiment.config
    path, parts = config.pretrained.path, config.pretrained.parts
    if not path:
        return {}
    if not Path(path).is_dir():
        arguments = dict(config.backbone)
        loaded = pretrained.load(arguments.pop("name"), path, **arguments)
        return {collection: {"backbone": tree} for collection, tree in loaded.items()}
    trained = load(path, "best")
    missing = sorted(set(parts) - set(trained.variables["params"]))
    if missing or not parts:
        raise InputError(
            f"pretrained.parts are {tuple(parts)}; the run of {path} has "
            f"{', '.join(sorted(trained.variables['params']))}"
        )
    chosen = {
        collection: {part: tree[part] for part in parts if part in tree}
        for collection, tree in trained.variables.items()
    }
    try:
        jax.eval_shape(with_variables, like, chosen)
    except ValueError as error:
        raise InputError(f"{path} does not fit this config: {error}") from error
    return chosen
