"""A trained model as one StableHLO file that runs without this package."""

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
"""Largest difference of an output from the model's that is accepted."""


def serialize(predictor: Predictor) -> bytes:
    """Returns `uint8 [b, S, S, 3] → predictor.exported`, any `b`, weights inside."""
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *predictor.image_size, 3), jnp.uint8)
    function = jax.jit(predictor.exported)
    return export.export(function, platforms=PLATFORMS)(images).serialize()


def write(predictor: Predictor, path: Path) -> str:
    """Writes the exported model and its description; returns a line that says so.

    `MODEL.stablehlo` reloads as `jax.export.deserialize(bytes).call(images)`;
    `MODEL.json` beside it names the classes, the image size and the preprocessing.

    Args:
      predictor: The model.
      path: The file to write.

    Raises:
      RunError: The reloaded model gives other outputs than the model.
    """
    serialized = serialize(predictor)
    largest = largest_difference(predictor, serialized)
    if not largest <= TOLERANCE:
        raise RunError(
            f"the exported model's outputs differ by {largest} from the model's; "
            f"{path} is not written"
        )
    path.write_bytes(serialized)
    path.with_suffix(".json").write_text(
        json.dumps(_description(predictor), indent=2) + "\n"
    )
    return (
        f"{path}: {len(serialized) / 2**20:.1f} MiB, reloaded, outputs within "
        f"{largest:.1e} of the model's"
    )


def largest_difference(predictor: Predictor, serialized: bytes) -> float:
    """Returns how far the reloaded model is from the model, on random images."""
    reloaded = export.deserialize(bytearray(serialized))
    shape = (3, *predictor.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ours = jax.jit(predictor.exported)(images)
    differences = jax.tree.map(
        lambda a, b: jnp.max(jnp.abs(a - b)), reloaded.call(images), ours
    )
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
