"""A trained model as one StableHLO file that runs without this package."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from fpn_jax.errors import InputError
from fpn_jax.predict import Classifier

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(classifier: Classifier) -> bytes:
    """Returns `uint8 [b, S, S, 3] → float32 [b, classes]`, any `b`, weights inside."""
    size = classifier.image_size
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    function = jax.jit(classifier.probabilities)
    return export.export(function, platforms=PLATFORMS)(images).serialize()


def run(classifier: Classifier, output: str) -> int:
    """Writes the exported model and its description; returns the exit code.

    `MODEL.stablehlo` reloads as `jax.export.deserialize(bytes).call(images)`;
    `MODEL.json` beside it names the classes, the image size and the preprocessing.

    Raises:
      InputError: The output cannot be written.
      RuntimeError: The reloaded model gives other probabilities than the model.
    """
    path = Path(output)
    if path.suffix != ".stablehlo":
        raise InputError(f"--output={output} must end in .stablehlo")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist")
    serialized = serialize(classifier)
    largest = largest_difference(classifier, serialized)
    if not largest <= 1e-3:
        raise RuntimeError(f"the exported probabilities differ by {largest}")
    path.write_bytes(serialized)
    description = {
        "input": f"uint8 [b, {classifier.image_size}, {classifier.image_size}, 3], RGB",
        "output": f"float32 [b, {len(classifier.classes)}], probabilities",
        "classes": classifier.classes,
        "preprocessing": repr(classifier.transform),
        "platforms": PLATFORMS,
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")
    print(
        f"{output}: {len(serialized) / 2**20:.1f} MiB, reloaded, probabilities within "
        f"{largest:.1e} of the model's"
    )
    return 0


def largest_difference(classifier: Classifier, serialized: bytes) -> float:
    """Returns how far the reloaded model is from the model, on random images."""
    reloaded = export.deserialize(bytearray(serialized))
    shape = (3, classifier.image_size, classifier.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ours = jax.jit(classifier.probabilities)(images)
    return float(jnp.max(jnp.abs(reloaded.call(images) - ours)))
