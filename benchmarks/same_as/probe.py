"""A program that runs inside the tree of a commit, with that commit's package.

    python probe.py batches FILE FLAGS…   trains, and writes a line for every batch
    python probe.py call MODEL FILE       calls an exported model on fixed images

Of the package it knows only `fpn_jax.main` and `fpn_jax.train.parallel.shard`, through
which every batch passes on its way to the devices.
"""

import hashlib
import json
import runpy
import sys
from pathlib import Path

import numpy as np

KEYS = ("image", "label", "weight", "index")
"""Arrays of a batch that are compared."""


def digest(array: np.ndarray) -> str:
    """Returns type, shape and SHA-256 of the bytes of an array."""
    array = np.ascontiguousarray(array)
    shape = "×".join(map(str, array.shape))
    return f"{array.dtype} {shape} {hashlib.sha256(array).hexdigest()}"


def record_batches(path: Path, flags: list[str]) -> None:
    """Runs the command line, and writes a JSON line for every batch.

    Args:
      path: File of the lines.
      flags: Of `python -m fpn_jax.main`.
    """
    from fpn_jax.train import parallel

    shard = parallel.shard

    def recording(batch):
        line = {key: digest(batch[key]) for key in KEYS if key in batch}
        with path.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        return shard(batch)

    parallel.shard = recording
    sys.argv = ["fpn_jax.main", *flags]
    # The name lets the module start itself; data workers look it up in sys.modules.
    runpy.run_module("fpn_jax.main", run_name="__main__", alter_sys=True)


def call_exported(model: Path, path: Path) -> None:
    """Calls an exported model on fixed images, and writes a digest of every output.

    Args:
      model: A `.stablehlo` file.
      path: JSON file: name of the output → digest.
    """
    import jax
    from jax import export

    exported = export.deserialize(bytearray(model.read_bytes()))
    (images,) = exported.in_avals
    shape = (5, *images.shape[1:])
    noise = np.random.default_rng(0).integers(0, 256, shape, images.dtype)
    outputs = jax.tree_util.tree_leaves_with_path(exported.call(noise))
    digests = {
        f"output{jax.tree_util.keystr(name)}": digest(np.asarray(output))
        for name, output in outputs
    }
    path.write_text(json.dumps(digests))


def main() -> None:
    """Does what the command line asks for."""
    what, file, *rest = sys.argv[1:]
    if what == "batches":
        record_batches(Path(file), rest)
    else:
        call_exported(Path(file), Path(rest[0]))


if __name__ == "__main__":
    main()
