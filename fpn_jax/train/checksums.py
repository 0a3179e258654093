"""CRC-32 checksums of arrays and of JSON."""

import json
import zlib
from typing import Any

import jax
import numpy as np


def checksum(tree: Any) -> int:
    """Returns the CRC-32 over the names and bytes of all leaves.

    Args:
      tree: A pytree of arrays.
    """
    crc = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        crc = zlib.crc32(jax.tree_util.keystr(path).encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(leaf), crc)
    return crc


def json_checksum(meta: dict[str, Any]) -> int:
    """Returns the CRC-32 of JSON; the order of its keys does not matter.

    Args:
      meta: A dict that JSON can store.
    """
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
