"""Records to batches: sharding over processes, threads, and bad records.

`order` says which record a position reads, so a batch does not depend on the number of
threads, workers, devices or processes, and a run resumes by starting at a later
position.
"""

import abc
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import cv2
import grain
import numpy as np

from fpn_jax.data import workers
from fpn_jax.data.annotations import MAX_BOXES, Layout, Unusable
from fpn_jax.data.images.decode import Undecodable
from fpn_jax.data.order import generator_at, record_number
from fpn_jax.data.records import DROPPED, BadRecord, Batch, Record, Source
from fpn_jax.errors import InputError, RunError, unknown, within

BAD_FILE_POLICIES = ("stop", "skip")

MOST_AT_A_TIME = 512
"""Limit of threads and of worker processes; more would bring a machine down."""

LAST_STEP = 2**31 - 1
"""Limit of the steps of a run."""

Augmentation = Callable[[Record, np.random.Generator], Record]
"""Record and generator → record with `image` uint8 `[S, S, 3]` and moved fields."""

SKIPPED = "skipped"
"""Key of a batch inside this module: the bad records that a row skipped."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How records are read; the contents of a batch do not depend on it.

    Attributes:
      on_bad_file: `"stop"` raises at the first record that cannot be used; `"skip"`
        continues without it.
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
        within("data.num_threads", self.num_threads, 1, MOST_AT_A_TIME)
        within("data.num_workers", self.num_workers, 0, MOST_AT_A_TIME)


@dataclasses.dataclass(frozen=True)
class _Share(grain.transforms.Map):
    """Number of a batch → this process's share of it, one row for each position.

    An element is a whole batch, because grain's overhead for an element is about half
    the time of decoding an image.

    Attributes:
      global_batch_size: Positions in a batch of all processes together.
      options: Says which process this is.
      source: The records.
      layout: The annotations of a batch, and their shapes.
    """

    global_batch_size: int
    options: Options
    source: Source
    layout: Layout

    def map(self, number: int) -> Batch:
        first = int(number) * self.global_batch_size
        positions = range(first, first + self.global_batch_size)
        share = positions[self.options.process_index :: self.options.process_count]
        numbers = [self.number_at(position) for position in share]
        # Sources with this method read the files of the batch in the background.
        if hasattr(self.source, "read_ahead"):
            self.source.read_ahead(dict.fromkeys(numbers))
        rows, images = [], None
        for slot, (position, requested) in enumerate(zip(share, numbers, strict=True)):
            row = self.row(position, requested)
            image = row.pop("image")
            if images is None:
                images = np.empty((len(share), *image.shape), image.dtype)
            # Copy now, while the image is in the cache of this core.
            images[slot] = image
            rows.append(row)
        batch = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        return batch | {"image": images}

    @abc.abstractmethod
    def number_at(self, position: int) -> int:
        """Returns the number of the record that a position asks for."""

    @abc.abstractmethod
    def row(self, position: int, requested: int) -> Batch:
        """Returns one example; `requested` is the record that `number_at` returns."""

    @abc.abstractmethod
    def change(self, record: Record, position: int) -> Record:
        """Returns a record at the final size; decodes an encoded image."""

    def read(self, index: int, position: int) -> Record:
        """Returns a record of the source after `change`.

        Raises:
          BadRecord: The record cannot be decoded, or lacks an annotation.
        """
        record = self.source[index]
        try:
            return self.change(self.layout.take(record), position)
        except (Undecodable, Unusable) as error:
            raise BadRecord(self.source.id(index), str(error)) from None


@dataclasses.dataclass(frozen=True)
class _ForTraining(_Share):
    augmentation: Augmentation
    seed: int

    def change(self, record: Record, position: int) -> Record:
        return self.augmentation(record, generator_at(self.seed, position))

    def number_at(self, position: int) -> int:
        return record_number(len(self.source), self.seed, position)

    def row(self, position: int, requested: int) -> Batch:
        # The next good record replaces a bad one, so that every batch is full and all
        # processes count the same number of steps.
        skipped = []
        for index in range(requested, requested + len(self.source)):
            index %= len(self.source)
            try:
                record = self.read(index, position)
            except BadRecord as error:
                if self.options.on_bad_file == "stop":
                    raise
                skipped.append((index, error.id, error.reason))
                continue
            fields = self.layout.row(record)
            return _row(record["image"], fields, index, skipped=skipped)
        raise InputError("not one record of the training split can be used")


@dataclasses.dataclass(frozen=True)
class _ForEvaluation(_Share):
    transform: Callable[[Record], Record]
    image_size: int

    def change(self, record: Record, position: int) -> Record:
        return self.transform(record)

    def number_at(self, position: int) -> int:
        # Clamp: padding positions name the last record but never read it.
        return min(position, len(self.source) - 1)

    def row(self, position: int, requested: int) -> Batch:
        if position >= len(self.source):
            return self._padding(-1)
        try:
            record = self.read(position, position)
        except BadRecord as error:
            if self.options.on_bad_file == "stop":
                raise
            return self._padding(position, [(position, error.id, error.reason)])
        return _row(record["image"], self.layout.row(record), position)

    def _padding(self, index: int, skipped: Sequence[tuple[int, str, str]] = ()):
        image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        fields = self.layout.empty(self.image_size)
        return _row(image, fields, index, weight=0.0, skipped=skipped)


def _row(
    image: np.ndarray,
    fields: dict[str, np.ndarray],
    index: int,
    weight: float = 1.0,
    skipped: Sequence[tuple[int, str, str]] = (),
) -> Batch:
    return {
        "image": image,
        **fields,
        "weight": np.float32(weight),
        "index": np.int32(index),
        # (number, id, reason) of bad records as text: workers hand over arrays only.
        SKIPPED: np.bytes_(json.dumps(skipped)) if skipped else b"",
    }


class Batches:
    """An iterator of batches that also counts skipped records and dropped boxes.

    Attributes:
      skipped: Record number → (id, reason), of the bad records found so far.
      boxes_out_of_view: Boxes that augmentation moved out of the images so far.
      boxes_over_limit: Boxes beyond `max_boxes` so far.
    """

    def __init__(self, dataset: grain.IterDataset, layout: Layout, in_workers: bool):
        self.skipped: dict[int, tuple[str, str]] = {}
        self.boxes_out_of_view = self.boxes_over_limit = 0
        self._layout, self._in_workers = layout, in_workers
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          BadRecord: A record cannot be used, and the policy is to stop.
          RunError: A worker process has ended.
        """
        try:
            # A worker starts when its first batch is asked for.
            shield = workers.no_interrupts if self._in_workers else nullcontext
            with shield():
                batch = dict(next(self._iterator))
        except RuntimeError as error:
            if self._in_workers and "Worker process was terminated" in str(error):
                raise RunError(
                    f"a data worker is gone: {str(error).partition('. ')[0]}. It was "
                    "killed, or memory ran out (fewer data.num_workers need less); run "
                    "the same command again to resume"
                ) from error
            raise
        for skipped in batch.pop(SKIPPED):
            for index, id, reason in json.loads(skipped or "[]"):
                if index not in self.skipped:
                    self.skipped[index] = id, reason
                    print(f"skipped: {id}: {reason}", file=sys.stderr)
        if DROPPED in batch:
            self._count_boxes(batch.pop(DROPPED), batch["index"])
        return batch

    def _count_boxes(self, dropped: np.ndarray, index: np.ndarray) -> None:
        out_of_view, over_limit = dropped.sum(axis=0).tolist()
        if over_limit and not self.boxes_over_limit:
            first = int(dropped[:, 1].argmax())
            limit = self._layout.max_boxes
            print(
                f"record {index[first]} has {limit + dropped[first, 1]} boxes, but a "
                f"batch has room for {limit} of each image: the largest are kept, here "
                "and in other records",
                file=sys.stderr,
            )
        self.boxes_out_of_view += out_of_view
        self.boxes_over_limit += over_limit

    def close(self) -> None:
        """Ends the threads and worker processes."""
        self._iterator.close()


def why_bad(source: Source, index: int) -> tuple[str, str]:
    """Returns id and reason of a record that another process skipped."""
    try:
        source[index]
    except BadRecord as error:
        return error.id, error.reason
    return source.id(index), "another process could not use it"


def _batches(dataset: grain.MapDataset, share: _Share) -> Batches:
    # Each thread decodes one image; threads of OpenCV would only compete with them.
    cv2.setNumThreads(0)
    options = share.options
    # Elements are whole batches; buffer one for each thread.
    read = grain.ReadOptions(
        num_threads=options.num_threads, prefetch_buffer_size=options.num_threads
    )
    iterated = dataset.map(share).to_iter_dataset(read)
    if options.num_workers:
        processes = grain.MultiprocessingOptions(num_workers=options.num_workers)
        iterated = iterated.mp_prefetch(processes, worker_init_fn=workers.begin_worker)
    return Batches(iterated, share.layout, in_workers=bool(options.num_workers))


def train_stream(
    source: Source,
    augmentation: Augmentation,
    *,
    global_batch_size: int,
    seed: int,
    fields: Collection[str] = ("label",),
    max_boxes: int = MAX_BOXES,
    options: Options = Options(),
) -> Callable[[int], Batches]:
    """Returns an endless stream of training batches: start step → this process's share.

    A resumed run starts at a later step, and reads none of the batches before it.

    Args:
      source: The records of the training split.
      augmentation: Record and generator → record with `image` `[S, S, 3]`.
      global_batch_size: Examples in a batch of all processes together.
      seed: Fixes the order and the augmentation.
      fields: Names of `records.FIELDS` that a batch holds beside the image.
      max_boxes: Boxes of an image in a batch; of more boxes the largest are kept.
      options: How to read.

    Raises:
      InputError: There are fewer records than a batch takes, or the source has not all
        of the fields.
    """
    if len(source) < global_batch_size:
        raise InputError(
            f"the training split has {len(source)} records, fewer than one batch; "
            f"data.global_batch_size is {global_batch_size}, take {len(source)} or less"
        )
    layout = Layout.of(source.info, fields, max_boxes)
    share = _ForTraining(
        global_batch_size, options, source, layout, augmentation, seed=seed
    )
    return lambda start_step: _batches(
        grain.MapDataset.range(start_step, LAST_STEP), share
    )


def train_batches(
    source: Source, augmentation: Augmentation, *, start_step: int = 0, **options: Any
) -> Batches:
    """Returns this process's training batches from a step on.

    Args:
      source: The records of the training split.
      augmentation: Record and generator → record with `image` `[S, S, 3]`.
      start_step: Number of batches to pass over, as a resumed run does.
      **options: As of `train_stream`.
    """
    return train_stream(source, augmentation, **options)(start_step)


def eval_batches(
    source: Source,
    transform: Callable[[Record], Record],
    *,
    image_size: int,
    global_batch_size: int,
    fields: Collection[str] = ("label",),
    max_boxes: int = MAX_BOXES,
    options: Options = Options(),
) -> Batches:
    """Returns this process's share of one pass over a split, padded and exact.

    Every process gives as many batches as the others; padding has weight 0.

    Args:
      source: The records of a split.
      transform: Record → record with `image` `[S, S, 3]` and the fields moved with it.
      image_size: `S`, in pixels.
      global_batch_size: Examples in a batch of all processes together.
      fields: Names of `records.FIELDS` that a batch holds beside the image, all in
        the pixels of the transformed image.
      max_boxes: Boxes of an image in a batch; of more boxes the largest are kept.
      options: How to read.

    Raises:
      InputError: The source has not all of the fields.
    """
    layout = Layout.of(source.info, fields, max_boxes)
    share = _ForEvaluation(
        global_batch_size, options, source, layout, transform, image_size=image_size
    )
    count = math.ceil(len(source) / global_batch_size)
    return _batches(grain.MapDataset.range(count), share)
