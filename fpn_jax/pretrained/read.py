"""Reading weights from `.safetensors`, `.npz` and `.pth` without running code."""

import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from fpn_jax import errors
from fpn_jax.errors import InputError

SAFE_TORCH = "2.6"
"""The first PyTorch whose `weights_only` is safe: CVE-2025-32434."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict."""

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to every name."""

MOST_UNPACKED = 100
"""Largest compression ratio of weights; a larger one is refused as a zip bomb."""

FLOATS = {"F16", "BF16", "F32", "F64"}
COUNTS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


class Weights(NamedTuple):
    """The content of a file of weights.

    Attributes:
      arrays: Name → array; floating-point arrays are float32.
      metadata: Metadata of the file, which only `.safetensors` has.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def read(path: str) -> Weights:
    """Returns the arrays of a file by name.

    Prefixes that DataParallel and torch.compile add to every name are removed.

    Args:
      path: A `.safetensors`, `.npz`, `.pth` or `.pt` file; the last two need PyTorch.

    Raises:
      InputError: The file does not exist, is damaged, or contains something else than
        arrays by name.
    """
    file = pathlib.Path(path)
    if not file.exists():
        raise InputError(f"weights {str(path)!r} do not exist")
    if not file.is_file():
        raise InputError(f"weights {str(path)!r} are a folder; give a file")
    if file.suffix not in READERS:
        raise errors.unknown(f"suffix of weights {str(path)!r}:", file.suffix, READERS)
    if not file.stat().st_size:
        raise InputError(f"weights {str(path)!r} are an empty file")
    arrays, metadata = READERS[file.suffix](file)
    if not arrays:
        raise InputError(f"weights {str(path)!r} contain no arrays")
    arrays = _without_prefixes(arrays)
    return Weights({name: _float32(x) for name, x in arrays.items()}, metadata)


def _without_prefixes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the prefixes that all names have, in whatever order they were added."""
    while prefix := next(
        (p for p in PREFIXES if all(name.startswith(p) for name in arrays)), None
    ):
        arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
    return arrays


def read_metadata(path: str) -> dict[str, str]:
    """Returns the metadata of a `.safetensors` file, `{}` for any other file.

    Args:
      path: A file of weights.

    Raises:
      InputError: The file does not exist or is damaged.
    """
    return read(path).metadata if str(path).endswith(".safetensors") else {}


def _read_safetensors(file: pathlib.Path) -> tuple[dict, dict]:
    try:
        with safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 (the file is no mapping)
                stored = opened.get_slice(name).get_dtype()
                if stored not in FLOATS | COUNTS:
                    raise errors.unknown(f"type of {name!r} in {file}:", stored, FLOATS)
            return opened.get_tensors(), opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error


def _read_npz(file: pathlib.Path) -> tuple[dict, dict]:
    try:
        with file.open("rb") as stream:
            opened = np.load(stream, allow_pickle=False)
            if isinstance(opened, np.lib.npyio.NpzFile):
                _refuse_bomb(file, opened.zip)
                return _numbers(file, dict(opened)), {}
    except InputError:
        raise
    except Exception as error:
        # A damaged file can raise any exception: NumPy evaluates its header as Python.
        raise _damaged(file, error) from error
    raise InputError(f"weights {str(file)!r} contain one array without a name")


def _numbers(file: pathlib.Path, arrays: dict) -> dict:
    """Returns the arrays; refuses other members, which NumPy returns as bytes."""
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
            kind = getattr(x, "dtype", "no array")
            raise InputError(
                f"weights {str(file)!r} contain {name!r}, which is {kind}; arrays "
                "must be numbers"
            )
    return arrays


def _refuse_bomb(file: pathlib.Path, archive: zipfile.ZipFile) -> None:
    """Refuses an archive that is not one of weights, before memory is allocated."""
    members = archive.infolist()
    others = [one.filename for one in members if not one.filename.endswith(".npy")]
    if others:
        raise InputError(
            f"weights {str(file)!r} contain {others[0]!r}, which is no array"
        )
    size = sum(one.file_size for one in members)
    if size > MOST_UNPACKED * file.stat().st_size:
        raise InputError(
            f"weights {str(file)!r} unpack to {size} bytes, more than {MOST_UNPACKED} "
            "times the file: this is no file of weights"
        )


def _read_pth(file: pathlib.Path) -> tuple[dict, dict]:
    with warnings.catch_warnings():
        # Ignore torch's warnings about the pickle protocol.
        warnings.simplefilter("ignore")
        try:
            import torch
        except ImportError as error:
            raise InputError(
                f"weights {str(file)!r} need PyTorch to be read; install it, with the "
                "extra 'parity', or convert them to .safetensors"
            ) from error
        if torch.torch_version.TorchVersion(torch.__version__) < SAFE_TORCH:
            raise InputError(
                f"weights {str(file)!r} need PyTorch {SAFE_TORCH} or newer; a file can "
                f"run code in the installed {torch.__version__}"
            )
        try:
            stored = torch.load(file, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise InputError(
                f"weights {str(file)!r} contain more than arrays, or are damaged; code "
                "in a file is never run; save the model's state_dict() instead"
            ) from error
        except Exception as error:
            # A damaged file can raise any exception.
            raise _damaged(file, error) from error
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping):
        kind = type(stored).__name__
        raise InputError(f"weights {str(file)!r} contain a {kind}, not arrays by name")
    arrays = {}
    for name, x in stored.items():
        if not isinstance(x, torch.Tensor) or x.layout != torch.strided:
            raise InputError(
                f"weights {str(file)!r} contain {name!r}, which is a "
                f"{type(x).__name__}, not an array; a state dict may have the key "
                f"{', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}"
            )
        arrays[str(name)] = (x.float() if x.is_floating_point() else x).numpy()
    return arrays, {}


READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_pth,
    ".pt": _read_pth,
}
"""Suffix → reader."""


def _damaged(file: pathlib.Path, error: Exception) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(
        f"weights {str(file)!r} are damaged or no {file.suffix} file: {reason}"
    )


def _float32(x: np.ndarray) -> np.ndarray:
    # NumPy does not count bfloat16, a type of ml_dtypes, as floating.
    if np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16":
        with np.errstate(over="ignore"):
            return x.astype(np.float32)
    return x
