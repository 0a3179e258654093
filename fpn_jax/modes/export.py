"""`--mode=export`: writes a trained model to a file for other programs."""

from pathlib import Path

from fpn_jax import paths
from fpn_jax.errors import InputError
from fpn_jax.exporters import EXPORTERS
from fpn_jax.modes import Options
from fpn_jax.trained import load

SUMMARY = "Writes a trained model to one file that needs only JAX to run."
TAKES = frozenset({"workdir", "checkpoint", "output"})
NEEDS = frozenset({"workdir", "output"})


def run(options: Options) -> int:
    """Writes the exported model and its description, and returns the exit code.

    Args:
      options: The values of the flags.

    Raises:
      InputError: The output has an unknown suffix or no folder, or the checkpoint does
        not exist.
      RunError: The outputs of the exported model differ from those of the model.
    """
    output = Path(options.output)
    if output.suffix not in EXPORTERS:
        raise InputError(f"--output={output} must end in {' or '.join(EXPORTERS)}")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist")
    paths.check_writable(output)
    predictor = load(options.workdir, options.checkpoint).predictor()
    print(EXPORTERS[output.suffix](predictor, output))
    return 0
