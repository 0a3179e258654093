"""Coverage-guided fuzzing of the readers of untrusted files: images and weights.

`python -m benchmarks.faults.fuzz decode --seconds=600` needs atheris (extra `fuzz`).
Any error except the documented one is a crash; its input is kept.
"""

import argparse
import io
import pathlib
import struct
import sys
import tempfile
import zipfile

MAX_BYTES = 1 << 16


def as_safetensors(data: bytes) -> bytes:
    """Returns a file of weights from a header, a newline, and numbers.

    The length of the header, which comes first in the file, is always right, because
    random bytes hardly ever contain the right one.
    """
    header, _, numbers = data.partition(b"\n")
    return struct.pack("<Q", len(header)) + header + numbers


def as_npz(data: bytes) -> bytes:
    """Returns an archive of an array with a right checksum; archives do not change."""
    if data.startswith(b"PK"):
        return data
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", data)
    return file.getvalue()


def seeds(target: str) -> list[bytes]:
    """Returns intact inputs to begin with."""
    # Imported here, because the fuzzer must instrument NumPy first.
    import numpy as np
    from PIL import Image

    if target == "safetensors":
        entry = b'"dtype":"F32","shape":[2,2],"data_offsets":[%d,%d]'
        entries = b'{"a.b":{%b},"c":{%b}}' % (entry % (0, 16), entry % (16, 32))
        return [entries + b"\n" + bytes(32)]
    file = io.BytesIO()
    if target == "npz":
        np.save(file, np.zeros((2, 3), np.float32))
        array, file = file.getvalue(), io.BytesIO()
        np.savez(file, a=np.zeros(2, np.float16))
        return [array, file.getvalue()]
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    images = []
    for kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff"):
        file = io.BytesIO()
        image.save(file, kind)
        images.append(file.getvalue())
    return images


TARGETS = {
    "decode": lambda data: data,
    "safetensors": as_safetensors,
    "npz": as_npz,
}
"""Name → function that turns the fuzzer's bytes into a file."""


def main() -> None:
    """Fuzzes one target; libFuzzer ends the process, with code 0 if nothing crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600, help="duration")
    parser.add_argument("--corpus", help="folder of inputs to begin with; only read")
    given = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["fpn_jax", "safetensors", "numpy.lib"]):
        from fpn_jax.data.images import decode
        from fpn_jax.errors import InputError
        from fpn_jax.pretrained.read import read

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="fpn_jax_fuzz_"))
    weights = scratch / f"x.{given.target}"

    def one_image(data: bytes) -> None:
        try:
            image = decode.decode(data)
        except ValueError:
            return
        assert image.ndim == 3, image.shape

    def one_file(data: bytes) -> None:
        weights.write_bytes(TARGETS[given.target](data))
        try:
            read(str(weights))
        except InputError:
            return

    found = scratch / "found"
    found.mkdir()
    for number, seed in enumerate(seeds(given.target)):
        (found / str(number)).write_bytes(seed)
    folders = [str(found), *([given.corpus] if given.corpus else [])]
    options = [
        f"-max_total_time={given.seconds}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={scratch}/",
        # Pillow leaks about half a KiB for every damaged PNG or GIF.
        "-rss_limit_mb=16384",
        "-timeout=30",
        "-print_final_stats=1",
    ]
    target = one_image if given.target == "decode" else one_file
    atheris.Setup([sys.argv[0], *options, *folders], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
