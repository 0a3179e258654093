"""Records to batches: order, sharding over processes, threads, and bad files.

The order is a pure function of (seed, position): the whole data set is shuffled anew
every epoch, every position draws its own augmentation, and each process then takes its
share of the positions. So the batches do not depend on the number of threads, workers,
devices or processes, and a run resumes by starting at a later position.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np

from fpn_jax.data.records import BadRecord, Batch, Source
from fpn_jax.errors import InputError, unknown

BAD_FILE_POLICIES = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Options:
    """How records are read; nothing of it changes what a batch holds.

    Attributes:
      on_bad_file: `"stop"` raises at the first file that does not decode whole;
        `"skip"` goes on without it.
      num_threads: Threads that read and decode, each a batch at a time, 1 or more.
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
        if self.num_threads < 1:
            raise InputError(f"data.num_threads is {self.num_threads}; it is 1 or more")
        if self.num_workers < 0:
            raise InputError(f"data.num_workers is {self.num_workers}; it is 0 or more")


@dataclasses.dataclass(frozen=True)
class _LoadForTraining(grain.transforms.RandomMap):
    source: Source
    transform: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    skip: bool

    def random_map(self, requested: int, rng: np.random.Generator) -> Batch:
        # A bad record gives way to the next good one, so that every batch is full and
        # every process counts alike.
        for index in range(requested, requested + len(self.source)):
            index %= len(self.source)
            try:
                record = self.source[index]
            except BadRecord:
                if not self.skip:
                    raise
                continue
            row = _row(self.transform(record["image"], rng), record["label"], index)
            return row | {"requested": np.int32(requested)}
        raise InputError("not one file of the training split decodes whole")


@dataclasses.dataclass(frozen=True)
class _LoadForEvaluation(grain.transforms.Map):
    source: Source
    transform: Callable[[np.ndarray], np.ndarray]
    image_size: int
    skip: bool

    def map(self, index: int) -> Batch:
        padding = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        if index >= len(self.source):
            return _row(padding, 0, -1, weight=0.0)
        try:
            record = self.source[index]
        except BadRecord:
            if not self.skip:
                raise
            return _row(padding, 0, index, weight=0.0)
        return _row(self.transform(record["image"]), record["label"], index)


def _row(image: np.ndarray, label: int, index: int, weight: float = 1.0) -> Batch:
    return {
        "image": image,
        "label": np.int32(label),
        "weight": np.float32(weight),
        "index": np.int32(index),
    }


class Batches:
    """An iterator of batches that also says which files it went without.

    Attributes:
      skipped: Record number → (id, reason), of the bad files met so far.
    """

    def __init__(self, dataset: grain.IterDataset, source: Source):
        self.skipped: dict[int, tuple[str, str]] = {}
        self._source = source
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = dict(next(self._iterator))
        requested = batch.pop("requested", None)
        if requested is not None:
            for first, used in zip(requested, batch["index"], strict=True):
                # Records run on from the last to the first.
                for step in range((used - first) % len(self._source)):
                    self._note((int(first) + step) % len(self._source))
        else:
            for index in batch["index"][(batch["weight"] == 0) & (batch["index"] >= 0)]:
                self._note(int(index))
        return batch

    def _note(self, index: int) -> None:
        if index not in self.skipped:
            self.skipped[index] = why_bad(self._source, index)
            print(f"skipped: {': '.join(self.skipped[index])}", file=sys.stderr)

    def close(self) -> None:
        """Ends the threads and worker processes."""
        self._iterator.close()


def why_bad(source: Source, index: int) -> tuple[str, str]:
    """Returns the id of a bad record and the reason, by reading it once more."""
    try:
        source[index]
    except BadRecord as error:
        return error.id, error.reason
    return source.id(index), "it could not be read for a moment"


def _read(dataset: grain.MapDataset, options: Options) -> grain.IterDataset:
    # An element here is a whole batch: one for every thread waits, no more.
    read = grain.ReadOptions(
        num_threads=options.num_threads, prefetch_buffer_size=options.num_threads
    )
    iterated = dataset.to_iter_dataset(read)
    if options.num_workers:
        workers = grain.MultiprocessingOptions(num_workers=options.num_workers)
        iterated = iterated.mp_prefetch(workers)
    return iterated


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
    load = _LoadForTraining(source, transform, options.on_bad_file == "skip")
    dataset = (
        grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    ).random_map(load)
    dataset = dataset[options.process_index :: options.process_count]
    dataset = dataset.batch(global_batch_size // options.process_count)
    return Batches(_read(dataset[start_step:], options), source)


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
    padded = math.ceil(len(source) / global_batch_size) * global_batch_size
    load = _LoadForEvaluation(
        source, transform, image_size, options.on_bad_file == "skip"
    )
    dataset = grain.MapDataset.range(padded).map(load)
    dataset = dataset[options.process_index :: options.process_count]
    dataset = dataset.batch(global_batch_size // options.process_count)
    return Batches(_read(dataset, options), source)
