"""Coverage-guided fuzzing of what reads strangers' bytes: the decoder, the weights.

`python -m benchmarks.faults.fuzz decode --seconds=600` needs atheris, the extra `fuzz`.
Any error but the documented one is a crash, whose input is kept.
"""

import argparse
import pathlib
import sys
import tempfile

TARGETS = ("decode", "safetensors", "npz")
MAX_BYTES = 1 << 16


def main() -> None:
    """Fuzzes one target for a while; libFuzzer ends the process, 0 without a crash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", help="folder of files to begin with, left as it is")
    given = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["fpn_jax", "safetensors", "numpy.lib"]):
        from fpn_jax.data import decode
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
        weights.write_bytes(data)
        try:
            read(str(weights))
        except InputError:
            return

    found = scratch / "found"
    found.mkdir()
    folders = [str(found), *([given.corpus] if given.corpus else [])]
    options = [
        f"-max_total_time={given.seconds}",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={scratch}/",
        # Pillow keeps about half a KiB of every damaged PNG or GIF.
        "-rss_limit_mb=16384",
        "-timeout=30",
        "-print_final_stats=1",
    ]
    target = one_image if given.target == "decode" else one_file
    atheris.Setup([sys.argv[0], *options, *folders], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
