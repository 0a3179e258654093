"""Files of weights: `.safetensors`, `.npz` and `.pth`, none of which may run code."""

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
"""The first PyTorch whose `weights_only` holds: CVE-2025-32434."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict beside other things."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

MOST_UNPACKED = 100
"""No weights become smaller than this part of their size by compression."""

FLOATS = {"F16", "BF16", "F32", "F64"}
COUNTS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


class Weights(NamedTuple):
    """What a file of weights holds.

    Attributes:
      arrays: Name → array; floating-point ones are float32.
      metadata: The file's own remarks, which only `.safetensors` has.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def read(path: str) -> Weights:
    """Returns the arrays of a file by name.

    A prefix that DataParallel or torch.compile puts before every name is cut off.

    Args:
      path: A `.safetensors`, `.npz`, `.pth` or `.pt` file; the last two need PyTorch.

    Raises:
      InputError: There is no such file, it is damaged, or it holds something else than
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
        raise InputError(f"weights {str(path)!r} hold no arrays")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
    return Weights({name: _float32(x) for name, x in arrays.items()}, metadata)


def read_metadata(path: str) -> dict[str, str]:
    """Returns the remarks of a `.safetensors` file, `{}` of any other.

    Args:
      path: A file of weights.

    Raises:
      InputError: There is no such file, or it is damaged.
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
        # A damaged file raises whatever its bytes lead to: a header is Python.
        raise _damaged(file, error) from error
    raise InputError(f"weights {str(file)!r} hold one array without a name")


def _numbers(file: pathlib.Path, arrays: dict) -> dict:
    """Returns the arrays; refuses what is none, which NumPy gives as bytes."""
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
            kind = getattr(x, "dtype", "no array")
            raise InputError(
                f"weights {str(file)!r} hold {name!r}, which is {kind}; numbers are "
                "wanted"
            )
    return arrays


def _refuse_bomb(file: pathlib.Path, archive: zipfile.ZipFile) -> None:
    """Refuses, before memory is taken, what is not an archive of weights."""
    members = archive.infolist()
    others = [one.filename for one in members if not one.filename.endswith(".npy")]
    if others:
        raise InputError(f"weights {str(file)!r} hold {others[0]!r}, which is no array")
    size = sum(one.file_size for one in members)
    if size > MOST_UNPACKED * file.stat().st_size:
        raise InputError(
            f"weights {str(file)!r} unpack to {size} bytes, more than {MOST_UNPACKED} "
            "times the file: they are no weights"
        )


def _read_pth(file: pathlib.Path) -> tuple[dict, dict]:
    with warnings.catch_warnings():
        # Of the pickle's protocol, which is not ours to change.
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
                f"weights {str(file)!r} need PyTorch {SAFE_TORCH} or newer, here is "
                f"{torch.__version__}: older ones can be made to run code by a file"
            )
        try:
            stored = torch.load(file, weights_only=True, map_location="cpu")
        except pickle.UnpicklingError as error:
            raise InputError(
                f"weights {str(file)!r} hold more than arrays, or are damaged, and "
                "nothing in them is run; save the model's state_dict() instead"
            ) from error
        except Exception as error:
            # A damaged file raises whatever its bytes lead to.
            raise _damaged(file, error) from error
    for key in WRAPPERS:
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping):
        kind = type(stored).__name__
        raise InputError(f"weights {str(file)!r} hold a {kind}, not arrays by name")
    arrays = {}
    for name, x in stored.items():
        if not isinstance(x, torch.Tensor) or x.layout != torch.strided:
            raise InputError(
                f"weights {str(file)!r} hold a {type(x).__name__} as {name!r}, not an "
                f"array; a state dict may stand under one of {', '.join(WRAPPERS)}"
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
