"""Untrusted files: nothing is executed or written, and memory stays bounded."""

import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable

import numpy as np

from benchmarks import memory
from benchmarks.faults.runs import Bench, Outcome
from fpn_jax import trained
from fpn_jax.errors import InputError
from fpn_jax.pretrained.read import read
from fpn_jax.train.checksums import json_checksum

MEMORY_MIB = 350
"""Limit of the memory for reading a small file, the import of PyTorch included."""


class Payload:
    """An object that creates a folder when it is unpickled.

    Args:
      path: The folder.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _pickle_as_pth(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.pth"
    path.write_bytes(pickle.dumps({"a": Payload(evil)}, protocol=2))
    return path


def _pickle_in_a_zip(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Payload(evil), protocol=2))
        file.writestr("archive/version", "3")
    return path


def _objects_in_npz(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.npz"
    np.savez(path, a=np.array([Payload(evil)], dtype=object))
    return path


def _pickle_as_npz(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.npz"
    path.write_bytes(pickle.dumps(Payload(evil), protocol=2))
    return path


def _pickle_as_safetensors(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.safetensors"
    path.write_bytes(pickle.dumps(Payload(evil), protocol=2))
    return path


def _paths_outside_the_folder(folder: pathlib.Path, evil: pathlib.Path) -> pathlib.Path:
    path = folder / "x.npz"
    np.savez(path, a=np.zeros(1))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(f"../{evil.name}", b"x")
        file.writestr(str(evil), b"x")
    return path


def _npz_of(shape: tuple[int, ...], written_mb: int) -> Callable:
    """Returns a function that writes a float32 array as `written_mb` MB of zeros."""

    def write(folder: pathlib.Path, _: pathlib.Path) -> pathlib.Path:
        path = folder / "x.npz"
        head = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
            file.open("a.npy", "w", force_zip64=True) as inner,
        ):
            np.lib.format.write_array_header_1_0(inner, head)
            for _ in range(written_mb):
                inner.write(bytes(1_000_000))
        return path

    return write


def _absurd_safetensors(shape: tuple[int, ...]) -> Callable:
    def write(folder: pathlib.Path, _: pathlib.Path) -> pathlib.Path:
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
        header = json.dumps({"a": entry}).encode()
        path = folder / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        return path

    return write


def _absurd_header(folder: pathlib.Path, _: pathlib.Path) -> pathlib.Path:
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return path


WEIGHTS = {
    "a pickle named .pth": _pickle_as_pth,
    "a pickle in a .pth archive": _pickle_in_a_zip,
    "Python objects in an .npz": _objects_in_npz,
    "a pickle named .npz": _pickle_as_npz,
    "a pickle named .safetensors": _pickle_as_safetensors,
    "paths in an .npz outside its folder": _paths_outside_the_folder,
    "an .npz of 16 TB in its header": _npz_of((4 * 10**12,), 0),
    "an .npz of 400 MB in 400 KB": _npz_of((10**8,), 400),
    "a .safetensors of 2**62 numbers": _absurd_safetensors((2**31, 2**31)),
    "a .safetensors of -4 numbers": _absurd_safetensors((-4,)),
    "a .safetensors whose header is 2**60 bytes": _absurd_header,
}
"""Name → function that writes such a file of weights."""


def weights(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, name: str
) -> Outcome:
    """Reads untrusted weights: they must be refused without any effect.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Not used.
      name: Key of `WEIGHTS`.
    """
    evil = scratch / "evil"
    path = WEIGHTS[name](scratch, evil)
    return _refused(lambda: read(str(path)), evil, scratch)


def _refused(use: Callable, evil: pathlib.Path, scratch: pathlib.Path) -> Outcome:
    """Returns whether a use raises `InputError`, writes nothing, and needs no memory.

    Args:
      use: Uses an untrusted file.
      evil: The folder that a payload creates.
      scratch: Folder of the file.
    """
    before = {*scratch.parent.rglob("*")}
    memory.forget_peak()
    memory_before = memory.peak_mib()
    try:
        use()
        refusal = ""
    except InputError as error:
        refusal = str(error)
    mib = memory.peak_mib() - memory_before
    written = {*scratch.parent.rglob("*")} - before
    passed = bool(refusal) and not evil.exists() and not written and mib < MEMORY_MIB
    return Outcome(passed, f"{refusal or 'accepted'} ({mib:.0f} MiB)", {"mib": mib})


CONFIGS = {
    "code in a field": ("backbone", "name", "__import__('os').mkdir('evil')"),
    "code for a number": ("data", "image_size", "__import__('os').mkdir('evil')"),
    "a format string": ("neck", "name", "{0.__class__.__init__.__globals__}"),
    "an object of Python": ("head", "name", {"__reduce__": ["os.mkdir", ["evil"]]}),
    "an absurd number": ("backbone", "width", 2**62),
    "an absurd image": ("data", "image_size", 2**40),
}
"""Name → part, key and value in the config of an untrusted checkpoint."""


def config(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator, name: str
) -> Outcome:
    """Opens an untrusted workdir whose checksums are correct: it must be refused.

    Args:
      bench: Has a run to copy.
      scratch: An empty folder.
      rng: Not used.
      name: Key of `CONFIGS`.
    """
    copy = scratch / "run"
    shutil.copytree(bench.uninterrupted, copy)
    part, key, value = CONFIGS[name]
    for path in copy.glob("checkpoints/*/meta/metadata"):
        meta = json.loads(path.read_text())
        meta["config"][part][key] = value
        kept = {k: meta[k] for k in meta if k != "checksums"}
        meta["checksums"]["meta"] = json_checksum(kept)
        path.write_text(json.dumps(meta))
    return _refused(
        lambda: trained.load(str(copy), "latest"), pathlib.Path("evil"), scratch
    )
