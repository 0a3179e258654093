"""Exports a trained model to one StableHLO file, which runs without this package."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from fpn_jax.errors import RunError
from fpn_jax.predictor import Predictor

PLATFORMS = ("cpu", "cuda", "tpu")

TOLERANCE = 1e-3
"""Largest accepted difference between outputs of the model and the exported model."""


def serialize(predictor: Predictor) -> bytes:
    """Returns the model and its weights in the format of `jax.export`.

    The exported function maps uint8 `[b, S, S, 3]`, for any batch size `b`, to the
    outputs of `predictor.exported`.

    Args:
      predictor: The model.
    """
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *predictor.image_size, 3), jnp.uint8)
    function = jax.jit(predictor.exported)
    return export.export(function, platforms=PLATFORMS)(images).serialize()


def write(predictor: Predictor, path: Path) -> str:
    """Writes the exported model and its description.

    `jax.export.deserialize(bytes).call(images)` runs the file `MODEL.stablehlo`. The
    file `MODEL.json` beside it describes inputs, outputs, classes and preprocessing.

    Args:
      predictor: The model.
      path: The file to write.

    Returns:
      A line of text that names the file and its size.

    Raises:
      RunError: The outputs of the exported model differ from those of the model.
    """
    serialized = serialize(predictor)
    largest = largest_difference(predictor, serialized)
    if not largest <= TOLERANCE:
        raise RunError(
            f"the outputs of the exported model differ by {largest} from those of the "
            f"model, which is more than {TOLERANCE}; {path} is not written"
        )
    path.write_bytes(serialized)
    path.with_suffix(".json").write_text(
        json.dumps(_description(predictor), indent=2) + "\n"
    )
    return (
        f"{path}: {len(serialized) / 2**20:.1f} MiB; its outputs differ from those of "
        f"the model by at most {largest:.1e}"
    )


def largest_difference(predictor: Predictor, serialized: bytes) -> float:
    """Returns the largest difference between outputs, on random images.

    Args:
      predictor: The model.
      serialized: The exported model, from `serialize`.
    """
    reloaded = export.deserialize(bytearray(serialized))
    shape = (3, *predictor.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ours = jax.jit(predictor.exported)(images)

    def difference(a: jax.Array, b: jax.Array) -> jax.Array:
        # Outputs may be bool, or unsigned, where a difference would wrap around.
        return jnp.max(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)))

    differences = jax.tree.map(difference, reloaded.call(images), ours)
    return float(max(jax.tree.leaves(differences)))


def _description(predictor: Predictor) -> dict[str, Any]:
    height, width = predictor.image_size
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.uint8)
    outputs = jax.eval_shape(predictor.exported, images)
    named = outputs if isinstance(outputs, dict) else {predictor.exports[0]: outputs}
    described = [
        f"{leaf.dtype} [{', '.join(['b', *map(str, leaf.shape[1:])])}], {name}"
        for name, leaf in named.items()
    ]
    return {
        "input": f"uint8 [b, {height}, {width}, 3], RGB",
        "output": described[0] if len(described) == 1 else described,
        "classes": predictor.info.classes,
        "preprocessing": repr(predictor.transform),
        "platforms": PLATFORMS,
    }
