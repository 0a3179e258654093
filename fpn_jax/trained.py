"""Opens a checkpoint of a run, to evaluate, predict, export, report or fine-tune."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import optax

from fpn_jax import config as configs
from fpn_jax import pretrained
from fpn_jax.config import Config, as_json
from fpn_jax.data.records import SourceInfo
from fpn_jax.errors import InputError, unknown
from fpn_jax.experiment import Experiment
from fpn_jax.parts import takes_root
from fpn_jax.predictor import Predictor
from fpn_jax.train.checkpoints import Checkpoints, DamagedCheckpoint
from fpn_jax.train.state import TrainState, Variables, with_variables
from fpn_jax.views import VIEWS
from fpn_jax.workdir.folder import Workdir, stored_in


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint of a run, ready to use.

    Attributes:
      workdir: Folder of the run.
      experiment: The run's config, and the classes and fields of its data.
      step: Step of the checkpoint.
      variables: The variables to evaluate and export.
    """

    workdir: Workdir
    experiment: Experiment
    step: int
    variables: Any

    def data_config(self, data_root: str | None) -> Config:
        """Returns the config that names the data to evaluate.

        Args:
          data_root: Folder of the data; None for the folder that the run was trained
            on.

        Raises:
          InputError: A folder is given, but the run's data source has no folder.
        """
        config = self.experiment.config
        if data_root is None:
            return config
        if not takes_root(config):
            raise InputError(
                "--data_root has no effect: the run was trained on data.source="
                f"{config.data.source.name}, which reads no folder"
            )
        moved = as_json(config)
        moved["data"]["root"] = data_root
        return configs.load(moved)

    def predictor(self) -> Predictor:
        """Returns the model as a function of images of any size."""
        experiment, task = self.experiment, self.experiment.task

        def answer(images: jax.Array) -> dict[str, jax.Array]:
            predictions = experiment.model.apply(self.variables, images, train=False)
            return task.decode(predictions, experiment.image_size)

        return Predictor(
            answer=answer,
            transform=experiment.eval_transform,
            info=experiment.info,
            view=VIEWS[task.kind],
            image_size=experiment.image_size,
            exports=task.exports,
            background=tuple(experiment.config.data.background),
        )


def load(workdir: str, checkpoint: str) -> Trained:
    """Returns a checkpoint of a workdir.

    Args:
      workdir: Folder of a run.
      checkpoint: `"best"`, `"latest"`, or the number of a step.

    Raises:
      InputError: The checkpoint does not exist or is damaged, or its config cannot be
        used.
    """
    folder = Workdir(workdir)
    if not folder.checkpoints.is_dir():
        raise InputError(
            f"--workdir={workdir} has no checkpoint; train first: "
            f"--config=configs/fpn.py --workdir={workdir}"
        )
    checkpoints = Checkpoints(folder.checkpoints, read_only=True)
    try:
        step = _chosen_step(checkpoints, checkpoint, workdir)
        experiment, like = _described(checkpoints.meta(step), workdir)
        variables = checkpoints.restore_eval_variables(step, like)
    except DamagedCheckpoint as error:
        raise InputError(f"{error}; choose another with --checkpoint") from error
    finally:
        checkpoints.close()
    return Trained(folder, experiment, step, variables)


def info_in(meta: Mapping[str, Any]) -> SourceInfo:
    """Returns the classes and fields of the training data.

    Args:
      meta: The JSON that was saved with a checkpoint.
    """
    # Checkpoints of version 0.1 store only classes; all of them are of classifiers.
    stored = meta.get("info") or {"classes": meta["classes"], "fields": ["label"]}
    return SourceInfo(**{name: tuple(values) for name, values in stored.items()})


def _described(meta: dict[str, Any], workdir: str) -> tuple[Experiment, TrainState]:
    """Returns the experiment that a checkpoint stores, and the shapes of its state."""
    try:
        experiment = Experiment(stored_in(meta, workdir), info_in(meta))
        # The optimizer's state is not restored, so any optimizer does.
        like = jax.eval_shape(lambda: experiment.initial_state(optax.identity()))
    except InputError:
        raise
    # The workdir may be untrusted: its config may contain anything.
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no model can be built from the config in --workdir={workdir}: {why}"
        ) from error
    return experiment, like


def _chosen_step(checkpoints: Checkpoints, checkpoint: str, workdir: str) -> int:
    steps = checkpoints.steps()
    best = checkpoints.best_step()
    if best is None:
        raise InputError(f"--workdir={workdir} has no checkpoint; train first")
    if checkpoint == "best":
        return best
    if checkpoint == "latest":
        return steps[-1]
    numbers = {str(step): step for step in steps}
    if checkpoint not in numbers:
        raise unknown("--checkpoint", checkpoint, ["best", "latest", *numbers])
    return numbers[checkpoint]


def initial_weights(experiment: Experiment, like: TrainState) -> Variables:
    """Returns the pretrained variables, or `{}` if the config names none.

    Args:
      experiment: An experiment whose `config.pretrained` names a file or a run.
      like: Shapes of the state before the first step.

    Raises:
      InputError: The weights cannot be read, or belong to another model.
    """
    config = experiment.config
    path, parts = config.pretrained.path, config.pretrained.parts
    if not path:
        return {}
    if not Path(path).is_dir():
        arguments = config.backbone.to_dict()
        loaded = pretrained.load(arguments.pop("name"), path, **arguments)
        return {collection: {"backbone": tree} for collection, tree in loaded.items()}
    trained = load(path, "best")
    missing = sorted(set(parts) - set(trained.variables["params"]))
    if missing or not parts:
        raise InputError(
            f"pretrained.parts is {tuple(parts)}; choose from the parts of the run in "
            f"{path}: {', '.join(sorted(trained.variables['params']))}"
        )
    chosen = {
        collection: {part: tree[part] for part in parts if part in tree}
        for collection, tree in trained.variables.items()
    }
    try:
        jax.eval_shape(with_variables, like, chosen)
    except ValueError as error:
        raise InputError(
            f"the weights of {path} do not fit this config: {error}"
        ) from error
    return chosen
