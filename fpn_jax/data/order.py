"""The order of the records, and the random numbers of every position.

Both are pure functions of (seed, position): a run that resumes, another process or
another number of threads gets the same records and the same augmentation.
"""

import functools
import threading

import numpy as np


class _Generators(threading.local):
    """One generator for each thread: creating one takes as long as drawing a crop."""

    def __init__(self):
        self._bits = np.random.Philox(key=0)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, seed: int, position: int, stream: int) -> np.random.Generator:
        self._state["state"]["key"][:] = seed & (2**64 - 1), seed >> 64
        # These counters are too far apart for two positions to draw the same numbers.
        self._state["state"]["counter"][:] = 0, 0, stream, position
        self._bits.state = self._state
        return self._generator


_generators = _Generators()


def generator_at(seed: int, position: int, stream: int = 0) -> np.random.Generator:
    """Returns this thread's generator, set to a state of its own.

    Args:
      seed: Not negative.
      position: Position in the endless stream of training examples, or another number.
      stream: Separates uses of the same seed and position.

    Returns:
      A generator that is valid until the thread's next call.
    """
    return _generators.at(seed, position, stream)


# Threads that read ahead can be in two epochs at once, and in more on small data sets.
@functools.lru_cache(maxsize=8)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers of all records in the order of an epoch, int `[size]`."""
    return generator_at(seed, epoch, stream=1).permutation(size)


def record_number(size: int, seed: int, position: int) -> int:
    """Returns which record a training position reads.

    Every epoch shuffles the whole data set anew.

    Args:
      size: Number of records.
      seed: Fixes the order.
      position: Position in the endless stream of training examples.
    """
    epoch, index = divmod(position, size)
    return int(epoch_order(size, seed, epoch)[index])
