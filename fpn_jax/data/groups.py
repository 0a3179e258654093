"""Training batches of P individuals with K pictures each, for losses on pairs.

The order is a pure function of (seed, position), as that of `order` is.
"""

from collections.abc import Sequence

import numpy as np

from fpn_jax.data.order import epoch_order, generator_at
from fpn_jax.errors import InputError, at_least

_PICTURES = 2
"""Stream of the random numbers that choose the pictures of an individual."""


class Groups:
    """Which record a training position reads, if pictures come in groups of K.

    A batch has `batch_size // K` groups of different individuals. Every epoch shuffles
    the individuals anew; those that do not fill a last batch wait for another epoch. An
    individual with fewer than K pictures repeats some of them.

    With several processes, a group stays together on one of them.

    Args:
      identities: Number of the individual of every record; −1 is unknown, and such a
        record is not read.
      images_per_identity: K, 2 or more.
      batch_size: Positions in a batch of all processes together; a multiple of K.
      seed: Fixes the order.

    Raises:
      InputError: K does not divide the batch, a batch would have one individual or more
        than there are, or no individual has two pictures.
    """

    def __init__(
        self,
        identities: Sequence[int],
        *,
        images_per_identity: int,
        batch_size: int,
        seed: int,
    ):
        key = "data.images_per_identity"
        at_least(key, images_per_identity, 2, whole=True)
        if batch_size % images_per_identity:
            raise InputError(
                f"{key} is {images_per_identity}; it must divide the "
                f"data.global_batch_size of {batch_size}"
            )
        known = np.asarray(identities)
        names = np.unique(known[known >= 0])
        self._records = [np.flatnonzero(known == name) for name in names]
        self._per_batch = batch_size // images_per_identity
        self._each, self._batch, self._seed = images_per_identity, batch_size, seed
        if not 2 <= self._per_batch <= len(names):
            raise InputError(
                f"a batch of {batch_size} images with {images_per_identity} of each "
                f"individual has {self._per_batch} individuals; the training split has "
                f"{len(names)}, and a batch needs two or more: change {key} or "
                "data.global_batch_size"
            )
        if max(map(len, self._records)) < 2:
            raise InputError(
                f"each of the {len(names)} individuals of the training split has one "
                "picture, so there is nothing to compare: add others of the same ones"
            )

    def number_at(self, position: int, process_count: int = 1) -> int:
        """Returns the number of the record that a position reads.

        Args:
          position: Position in the endless stream of training examples.
          process_count: How many processes share a batch; process `i` reads every
            `process_count`-th position from `i` on. It must divide the groups evenly.
        """
        batch, place = divmod(position, self._batch)
        slot, process = divmod(place, process_count)
        group, picture = divmod(slot, self._each)
        return self._record(batch, group * process_count + process, picture)

    def _record(self, batch: int, group: int, picture: int) -> int:
        count = len(self._records)
        epoch, turn = divmod(batch, count // self._per_batch)
        who = epoch_order(count, self._seed, epoch)[turn * self._per_batch + group]
        records = self._records[who]
        rng = generator_at(self._seed, batch * self._per_batch + group, _PICTURES)
        chosen = rng.permutation(len(records))
        # All pictures are shown before one is shown again.
        return int(records[chosen[picture % len(records)]])
