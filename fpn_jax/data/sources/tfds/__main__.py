"""Prepares a TFDS data set: `python -m fpn_jax.data.sources.tfds NAME`."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from fpn_jax.data.sources.tfds import COMMAND, load_builder
from fpn_jax.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Downloads a data set and prepares it for random access.

    Args:
      arguments: Arguments of the command line; `sys.argv` if None.

    Returns:
      Exit code: 0, or 2 if the data set cannot be prepared; stderr says why.
    """
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=main.__doc__.splitlines()[0],
    )
    parser.add_argument(
        "name", help="data set, such as cats_vs_dogs or oxford_iiit_pet"
    )
    parser.add_argument(
        "--data_dir", help="folder for the data set; by default the one of TFDS"
    )
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("tensorflow") is None:
        print(
            "TensorFlow, with which TFDS prepares its data sets, is not installed.\n"
            'Install it with: pip install -e ".[tf]"',
            file=sys.stderr,
        )
        return 2
    try:
        _prepare(options.name, options.data_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _prepare(name: str, data_dir: str | None) -> None:
    import requests
    import tensorflow_datasets as tfds

    builder = load_builder(name, data_dir)
    try:
        builder.download_and_prepare(file_format="array_record")
    except (
        requests.exceptions.ConnectionError,
        tfds.download.DownloadError,
    ) as error:
        raise InputError(
            f"{name!r} cannot be downloaded; is there a network? ({error})"
        ) from error
    if "array_record" not in {
        file_format.value for file_format in builder.info.available_file_formats()
    }:
        raise InputError(
            f"{name!r} is already prepared in {builder.data_path} as "
            f"{builder.info.file_format.value}; give another --data_dir"
        )
    print(f"prepared in {builder.data_path}")


if __name__ == "__main__":
    sys.exit(main())
