"""Maps of four levels, for all tests of necks."""

import numpy as np
import pytest

CHANNELS = {2: 3, 3: 5, 4: 7, 5: 9}
SIZES = {2: (25, 17), 3: (13, 9), 4: (7, 5), 5: (4, 3)}


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return {
        level: rng.normal(size=(2, *SIZES[level], CHANNELS[level])).astype(np.float32)
        for level in CHANNELS
    }
