"""Checkpoints: the state, its checksums, and everything needed to resume a run.

Orbax writes each checkpoint in the background, into one atomic directory per step.
Orbax stores no checksum of array data, so a flipped bit would silently give a wrong
weight. Therefore every part of the state is stored with a CRC-32, which `restore`
compares.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from fpn_jax.errors import InputError, RunError
from fpn_jax.train import parallel
from fpn_jax.train.checksums import checksum, json_checksum
from fpn_jax.train.state import TrainState

PARTS = ("step", "params", "batch_stats", "opt_state", "ema", "rng")


def _checksums(state: TrainState, parts: tuple[str, ...] = PARTS) -> dict[str, int]:
    return {part: checksum(getattr(state, part)) for part in parts}


NOT_DAMAGE = (MemoryError, PermissionError, jax.errors.JaxRuntimeError)
"""Errors while reading that do not mean that the bytes on the disk are damaged."""


class DamagedCheckpoint(RunError):
    """A checkpoint is incomplete, or its bytes differ from those that were written."""


class SaveFailed(RunError):
    """A checkpoint could not be written; earlier checkpoints are unchanged."""


class Checkpoints:
    """The checkpoints of one run: the newest `keep_latest`, and the best checkpoint.

    Args:
      directory: Folder of the checkpoints, which has one folder per step.
      monitor: Metric that ranks new checkpoints; larger is better. Each checkpoint
        stores its name, so `monitor` is not needed for reading.
      keep_latest: Number of newest checkpoints to keep, 1 or more.
      read_only: Whether to change nothing on the disk, not even the unfinished
        checkpoint of a running training.
    """

    def __init__(
        self,
        directory: Path,
        *,
        monitor: str | None = None,
        keep_latest: int = 2,
        read_only: bool = False,
    ):
        self._directory = Path(directory).absolute()
        self._saving: int | None = None
        self._saving_parts: frozenset[str] = frozenset()
        self._orbax_can_read = False
        # Orbax's max_to_keep with best_fn would delete the newest checkpoint, and its
        # own metrics have no checksum.
        policy = preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(keep_latest), _KeepOne(self.best_step)]
        )
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        state, meta = ocp.PyTreeCheckpointHandler(), ocp.JsonCheckpointHandler()
        registry.add("state", ocp.args.PyTreeSave, state)
        registry.add("state", ocp.args.PyTreeRestore, state)
        registry.add("meta", ocp.args.JsonSave, meta)
        registry.add("meta", ocp.args.JsonRestore, meta)
        self._monitor = monitor
        self._manager = ocp.CheckpointManager(
            epath.Path(self._directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
            handler_registry=registry,
        )
        self._values = {step: self._stored_value(step) for step in self.steps()}

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint directory, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint.

        Returns:
          The step with the largest `monitor`; the newest step if no checkpoint was
          evaluated; None if there is no checkpoint.
        """
        steps = self.steps()
        values = {step: self._values.get(step) for step in steps}
        ranked = [(value, step) for step, value in values.items() if value is not None]
        if ranked:
            return max(ranked)[1]
        return steps[-1] if steps else None

    def _stored_value(self, step: int) -> float | None:
        """Returns the metric that ranks a stored checkpoint; None if it has none."""
        try:
            meta = self.meta(step)
        except DamagedCheckpoint:
            # A damaged checkpoint has no rank; `restore` raises the error.
            return None
        # Older checkpoints lack the key `monitor`; all of them are of classifiers.
        return (meta["metrics"] or {}).get(meta.get("monitor", "accuracy"))

    def save(
        self, state: TrainState, meta: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Begins to write a checkpoint; the files are complete after `wait`.

        Args:
          state: A replicated state, which is copied before this method returns.
          meta: JSON to store with the state: config, classes, position.
          metrics: Metrics of the validation split, which rank checkpoints; None if
            this step was not evaluated.

        Raises:
          SaveFailed: This checkpoint, or the one before it, could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.wait()
        meta = meta | {"step": step, "metrics": metrics, "monitor": self._monitor}
        meta["checksums"] = _checksums(state) | {"meta": json_checksum(meta)}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(parallel.globalize(_as_dict(state))),
            meta=ocp.args.JsonSave(meta),
        )
        self._saving, self._values[step] = step, (metrics or {}).get(self._monitor)
        self._saving_parts = frozenset(_as_dict(state))
        try:
            self._manager.save(step, args=args)
        except OSError as error:
            raise self._failed(error) from error

    def meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON that was saved with a checkpoint.

        Args:
          step: One of `steps()`.

        Raises:
          DamagedCheckpoint: The JSON cannot be read, or its checksum differs.
        """
        try:
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = self._manager.restore(step, args=args).meta
        except (KeyError, OSError, ValueError) as error:
            raise DamagedCheckpoint(f"step {step}: its meta cannot be read") from error
        # A corrupted file can still parse as JSON.
        checksums = meta.get("checksums") if isinstance(meta, dict) else None
        if not isinstance(checksums, dict):
            raise DamagedCheckpoint(f"step {step}: its meta cannot be read")
        kept = {key: meta[key] for key in meta if key != "checksums"}
        if json_checksum(kept) != checksums.get("meta"):
            raise DamagedCheckpoint(f"step {step}: meta differs from its checksum")
        return meta

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state of one step, on the local devices.

        Args:
          step: One of `steps()`.
          like: A state of the same structure, with arrays or their shapes as leaves.

        Raises:
          InputError: The checkpoint belongs to another architecture. The text names
            the leaves that differ.
          DamagedCheckpoint: The checkpoint is incomplete, or a checksum differs.
        """
        return like.replace(**self._restore(step, like, PARTS))

    def restore_eval_variables(self, step: int, like: TrainState) -> dict[str, Any]:
        """Returns the variables to evaluate: the moving average if there is one.

        Args:
          step: One of `steps()`.
          like: A state of the same structure, with arrays or their shapes as leaves.

        Raises:
          InputError: The checkpoint belongs to another architecture. The text names
            the leaves that differ.
          DamagedCheckpoint: The checkpoint is incomplete, or a checksum differs.
        """
        parts = ("params", "batch_stats") if like.ema is None else ("ema",)
        parts = ("step", *parts)
        return like.replace(**self._restore(step, like, parts)).eval_variables

    def _restore(
        self, step: int, like: TrainState, parts: tuple[str, ...]
    ) -> dict[str, Any]:
        checksums = self.meta(step)["checksums"]
        sharding = parallel.replicated_over_all()
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            {part: _as_dict(like)[part] for part in parts if part in _as_dict(like)},
        )
        self._refuse_other_architecture(step, wanted)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        item=wanted,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(
                            wanted
                        ),
                        partial_restore=True,
                    )
                ),
            ).state
        except NOT_DAMAGE:
            raise
        # Orbax raises a bare Exception for bytes that it cannot decode.
        except Exception as error:
            raise DamagedCheckpoint(
                f"step {step}: its arrays cannot be read"
            ) from error
        restored = parallel.localize(restored)
        for part, tree in restored.items():
            if checksum(tree) != checksums.get(part):
                raise DamagedCheckpoint(
                    f"step {step}: {part} differs from its checksum"
                )
        if int(restored["step"]) != step:
            raise DamagedCheckpoint(
                f"step {step}: its folder contains step {int(restored['step'])}; give "
                "the folder its old name"
            )
        return restored

    def _refuse_other_architecture(self, step: int, wanted: dict[str, Any]) -> None:
        metadata = self._index(step)
        stored = {part: metadata.get(part, {}) for part in wanted}
        ours, theirs = _shapes(wanted), _shapes(stored)
        lines = [
            f"{name}: not in the checkpoint" for name in ours.keys() - theirs.keys()
        ]
        lines += [f"{name}: not in the model" for name in theirs.keys() - ours.keys()]
        lines += [
            f"{name}: {theirs[name]} in the checkpoint, {ours[name]} in the model"
            for name in ours.keys() & theirs.keys()
            # Orbax stores a PRNG key as uint32 words, so its shape differs.
            if ours[name] != theirs[name] and not name.startswith("rng")
        ]
        if lines:
            shown = sorted(lines)[:8]
            more = f"; and {len(lines) - 8} more" if len(lines) > 8 else ""
            raise InputError(
                f"the checkpoint of step {step} belongs to another architecture: "
                f"{'; '.join(shown)}{more}"
            )

    def move(self, step: int, path: Path) -> None:
        """Moves a damaged checkpoint, and replaces an earlier one at the target.

        Args:
          step: One of `steps()`.
          path: Target folder, on the same disk.
        """
        if jax.process_index() == 0:
            shutil.rmtree(path, ignore_errors=True)
            (self._directory / str(step)).rename(path)
        parallel.barrier(f"checkpoint {step} moved")
        self._manager.reload()

    def reached_preemption(self, step: int) -> bool:
        """Returns whether all processes agree to stop after this step.

        Args:
          step: Optimizer steps taken.
        """
        return self._manager.reached_preemption(step)

    def raise_if_failed(self) -> None:
        """Raises an error if a save has failed; does not wait for a save in progress.

        Raises:
          SaveFailed: The last save failed. The text names its step and the reason.
        """
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until all checkpoints are complete on the disk.

        Raises:
          SaveFailed: The last save failed. The text names its step and the reason.
        """
        try:
            self._manager.wait_until_finished()
        # Orbax re-raises any exception of its background thread.
        except Exception as error:
            raise self._failed(error) from error
        if self._saving is not None:
            if not (self._directory / str(self._saving)).is_dir():
                raise self._failed("its folder is missing")
            self._check_readable(self._saving)
            self._saving = None

    def _check_readable(self, step: int) -> None:
        """Reads the meta and the index of a checkpoint that has just been written."""
        try:
            self.meta(step)
            stored = self._stored_parts(step)
            if not self._orbax_can_read:
                # Orbax's own way is tried once: each time keeps 2 MiB of memory.
                stored &= self._index(step).keys()
                self._orbax_can_read = True
            missing = self._saving_parts - stored
        except DamagedCheckpoint as error:
            raise self._failed(error) from error
        if missing:
            raise self._failed(f"its index lacks {', '.join(sorted(missing))}")

    def _stored_parts(self, step: int) -> set[str]:
        """Returns the parts whose arrays are in the store of a checkpoint."""
        base = {"driver": "file", "path": f"{self._directory / str(step) / 'state'}/"}
        try:
            store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
            names = store.list().result()
        except ValueError as error:
            raise DamagedCheckpoint(f"step {step}: its store cannot be read") from error
        # A name is `params.head.logits.kernel/.zarray`.
        return {name.decode().partition("/")[0].partition(".")[0] for name in names}

    def _index(self, step: int) -> dict[str, Any]:
        """Returns part → the stored names and shapes of its leaves."""
        try:
            return self._manager.item_metadata(step)["state"].tree
        except NOT_DAMAGE:
            raise
        except Exception as error:
            raise DamagedCheckpoint(f"step {step}: its index cannot be read") from error

    def _failed(self, error: Exception | str) -> SaveFailed:
        step, self._saving = self._saving, None
        self._manager.reload()
        kept = [other for other in self.steps() if other != step]
        last = (
            f"the last intact one is step {kept[-1]}" if kept else "there is no other"
        )
        why = (str(error).strip().splitlines() or [repr(error)])[0]
        return SaveFailed(
            f"the checkpoint of step {step} could not be written to "
            f"{self._directory}: {why}; {last}"
        )

    def close(self) -> None:
        """Waits, and ends the background threads."""
        self._manager.close()


@dataclasses.dataclass
class _KeepOne:
    """A policy for Orbax that keeps the step that a function returns."""

    step: Callable[[], int | None]

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        kept = self.step()
        return [info.step == kept for info in checkpoints]


def _as_dict(state: TrainState) -> dict[str, Any]:
    """Returns the parts of a state that have leaves; Orbax cannot store empty parts."""
    parts = {part: getattr(state, part) for part in PARTS}
    return {part: tree for part, tree in parts.items() if jax.tree.leaves(tree)}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {
        "/".join(ocp.tree.str_keypath(path)): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
