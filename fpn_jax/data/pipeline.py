"""Records to batches: order, sharding over processes, threads, and bad files.

The order is a pure function of (seed, position): the whole data set is shuffled anew
every epoch, every position draws its own augmentation, and each process then takes its
share of the positions. So the batches do not depend on the number of threads, workers,
devices or processes, and a run resumes by starting at a later position.
"""

import abc
import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker

import cv2
import grain
import numpy as np

from fpn_jax.data.images.decode import Undecodable
from fpn_jax.data.records import BadRecord, Batch, Source
from fpn_jax.errors import InputError, RunError, unknown

BAD_FILE_POLICIES = ("stop", "skip")

MOST_AT_A_TIME = 512
"""Threads or worker processes; more are a mistake that would bring a machine down."""

LAST_STEP = 2**31 - 1
"""No run is longer, in steps."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How records are read; nothing of it changes what a batch holds.

    Attributes:
      on_bad_file: `"stop"` raises at the first file that does not decode whole;
        `"skip"` goes on without it.
      num_threads: Threads that read and decode, each a batch at a time; 1 to 512.
      num_workers: Processes that do so instead; 0 reads in this process.
      process_index: Which process this is.
      process_count: How many processes share every batch.
    """

    on_bad_file: str = "stop"
    num_threads: int = 4
    num_workers: int = 0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        if self.on_bad_file not in BAD_FILE_POLICIES:
            raise unknown("data.on_bad_file", self.on_bad_file, BAD_FILE_POLICIES)
        for name, least in (("num_threads", 1), ("num_workers", 0)):
            number = getattr(self, name)
            if not least <= number <= MOST_AT_A_TIME:
                raise InputError(
                    f"data.{name} is {number}; it lies in {least} … {MOST_AT_A_TIME}"
                )


@dataclasses.dataclass(frozen=True)
class _Share(grain.transforms.Map):
    """Number of a batch → this process's share of it, one row a position.

    A batch at a time: what grain does for an element costs as much as half a decoding.

    Attributes:
      global_batch_size: Positions in a batch of all processes together.
      options: Says which process this is.
      source: The records.
    """

    global_batch_size: int
    options: Options
    source: Source

    def map(self, number: int) -> Batch:
        first = int(number) * self.global_batch_size
        positions = range(first, first + self.global_batch_size)
        share = positions[self.options.process_index :: self.options.process_count]
        # What takes time is begun before it is wanted, where a source can.
        if hasattr(self.source, "read_ahead"):
            self.source.read_ahead(dict.fromkeys(map(self.number_at, share)))
        rows, images = [], None
        for place, position in enumerate(share):
            row = self.row(position)
            image = row.pop("image")
            if images is None:
                images = np.empty((len(share), *image.shape), image.dtype)
            # Copied while it lies in the core's own cache.
            images[place] = image
            rows.append(row)
        batch = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return batch | {"image": images}

    @abc.abstractmethod
    def number_at(self, position: int) -> int:
        """Returns the number of the record that a position asks for."""

    @abc.abstractmethod
    def row(self, position: int) -> Batch:
        """Returns one example; of the same position always the same one."""


class _Draws(threading.local):
    """The generator of a thread: to make one takes as long as to draw all of a crop."""

    def __init__(self):
        self._bits = np.random.Philox(key=0)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, seed: int, position: int, stream: int = 0) -> np.random.Generator:
        """Returns the generator, set to a place of its own until the next call."""
        self._state["state"]["key"][:] = seed & (2**64 - 1), seed >> 64
        # Counters so far apart that no two positions draw the same numbers.
        self._state["state"]["counter"][:] = 0, 0, stream, position
        self._bits.state = self._state
        return self._generator


_draws = _Draws()


# Threads that read ahead may be in two epochs at a time, of small data sets in more.
@functools.lru_cache(maxsize=8)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers of all records in the order of an epoch."""
    return _draws.at(seed, epoch, stream=1).permutation(size)


@dataclasses.dataclass(frozen=True)
class _ForTraining(_Share):
    transform: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    seed: int

    def number_at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.source))
        return int(epoch_order(len(self.source), self.seed, epoch)[place])

    def row(self, position: int) -> Batch:
        requested = self.number_at(position)
        # A bad record gives way to the next good one, so that every batch is full and
        # every process counts alike.
        met = []
        for index in range(requested, requested + len(self.source)):
            index %= len(self.source)
            try:
                record = self.source[index]
                # What is still encoded is decoded here.
                image = self.transform(record["image"], _draws.at(self.seed, position))
            except (BadRecord, Undecodable) as error:
                if not isinstance(error, BadRecord):
                    error = BadRecord(self.source.id(index), str(error))
                if self.options.on_bad_file == "stop":
                    raise error from None
                met.append((index, error.id, error.reason))
                continue
            return _row(image, record["label"], index, met=met)
        raise InputError("not one file of the training split decodes whole")


@dataclasses.dataclass(frozen=True)
class _ForEvaluation(_Share):
    transform: Callable[[np.ndarray], np.ndarray]
    image_size: int

    def number_at(self, position: int) -> int:
        # Padding asks for one that is there, and does not fetch it.
        return min(position, len(self.source) - 1)

    def row(self, position: int) -> Batch:
        padding = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        if position >= len(self.source):
            return _row(padding, 0, -1, weight=0.0)
        try:
            record = self.source[position]
        except BadRecord as error:
            if self.options.on_bad_file == "stop":
                raise
            met = [(position, error.id, error.reason)]
            return _row(padding, 0, position, weight=0.0, met=met)
        return _row(self.transform(record["image"]), record["label"], position)


def _row(
    image: np.ndarray,
    label: int,
    index: int,
    weight: float = 1.0,
    met: Sequence[tuple[int, str, str]] = (),
) -> Batch:
    return {
        "image": image,
        "label": np.int32(label),
        "weight": np.float32(weight),
        "index": np.int32(index),
        # Bad files, as (number, id, reason): text, since workers hand over arrays.
        "met": np.bytes_(json.dumps(met)) if met else b"",
    }


class Batches:
    """An iterator of batches that also says which files it went without.

    Attributes:
      skipped: Record number → (id, reason), of the bad files met so far.
    """

    def __init__(self, dataset: grain.IterDataset, in_workers: bool):
        self.skipped: dict[int, tuple[str, str]] = {}
        self._in_workers = in_workers
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          BadRecord: A file is bad, and the policy is to stop.
          RunError: A worker process has ended.
        """
        try:
            # A worker starts when its first batch is asked for.
            with _no_interrupts() if self._in_workers else contextlib.nullcontext():
                batch = dict(next(self._iterator))
        except RuntimeError as error:
            if self._in_workers and "Worker process was terminated" in str(error):
                raise RunError(
                    f"a data worker is gone: {str(error).partition('. ')[0]}. It was "
                    "killed, or memory ran out (fewer data.num_workers need less); the "
                    "same command goes on"
                ) from error
            raise
        for met in batch.pop("met"):
            for index, id, reason in json.loads(met or "[]"):
                if index not in self.skipped:
                    self.skipped[index] = id, reason
                    print(f"skipped: {id}: {reason}", file=sys.stderr)
        return batch

    def close(self) -> None:
        """Ends the threads and worker processes."""
        self._iterator.close()


def why_bad(source: Source, index: int) -> tuple[str, str]:
    """Reads a bad record that another process met; returns its id and the reason."""
    try:
        source[index]
    except BadRecord as error:
        return error.id, error.reason
    return source.id(index), "it could not be read for a moment"


@functools.cache
def _start_tracker() -> None:
    """Starts the process that frees the shared memory of batches nobody took.

    It starts with the first worker otherwise, and lets Ctrl-C through to that one. It
    calls a leak what it frees; its options come from this process.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    resource_tracker.ensure_running()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Keeps Ctrl-C from processes that are started here; this one gets it afterwards.

    In a terminal it reaches every process at once, but the loop is to end with its
    step, and to read on until then.
    """
    _start_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(index: int, count: int) -> None:
    """Lets a worker end with the process that wants its batches, and not before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    # A process that was killed tells nobody; its workers would wait for ever.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _batches(dataset: grain.MapDataset, options: Options) -> Batches:
    # The threads take an image each; OpenCV's own would only get in their way.
    cv2.setNumThreads(0)
    # An element here is a whole batch: one for every thread waits, no more.
    read = grain.ReadOptions(
        num_threads=options.num_threads, prefetch_buffer_size=options.num_threads
    )
    iterated = dataset.to_iter_dataset(read)
    if options.num_workers:
        workers = grain.MultiprocessingOptions(num_workers=options.num_workers)
        iterated = iterated.mp_prefetch(workers, worker_init_fn=_begin_worker)
    return Batches(iterated, in_workers=bool(options.num_workers))


def train_batches(
    source: Source,
    transform: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    options: Options = Options(),
) -> Batches:
    """Returns this process's share of an endless stream of training batches.

    Args:
      source: The records of the training split.
      transform: Image and generator → augmented image `[S, S, 3]`.
      global_batch_size: Examples in a batch of all processes together.
      seed: Fixes the order and the augmentation.
      start_step: Number of batches to leave out, as a resumed run does.
      options: How to read.

    Raises:
      InputError: There are fewer records than a batch takes.
    """
    if len(source) < global_batch_size:
        raise InputError(
            f"the training split has {len(source)} records, fewer than one batch; "
            f"data.global_batch_size is {global_batch_size}, take {len(source)} or less"
        )
    share = _ForTraining(global_batch_size, options, source, transform, seed)
    numbers = grain.MapDataset.range(start_step, LAST_STEP)
    return _batches(numbers.map(share), options)


def eval_batches(
    source: Source,
    transform: Callable[[np.ndarray], np.ndarray],
    *,
    image_size: int,
    global_batch_size: int,
    options: Options = Options(),
) -> Batches:
    """Returns this process's share of one pass over a split, padded and exact.

    Every process gives as many batches as the others; padding has weight 0.

    Args:
      source: The records of a split.
      transform: Image → image `[S, S, 3]`.
      image_size: `S`, in pixels.
      global_batch_size: Examples in a batch of all processes together.
      options: How to read.
    """
    share = _ForEvaluation(
        global_batch_size, options, source, transform, image_size=image_size
    )
    numbers = grain.MapDataset.range(math.ceil(len(source) / global_batch_size))
    return _batches(numbers.map(share), options)
