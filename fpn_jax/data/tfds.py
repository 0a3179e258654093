"""The former address of the command that prepares TFDS data sets; names the new one."""

import sys

if __name__ == "__main__":
    print("fpn_jax: run python -m fpn_jax.data.sources.tfds instead", file=sys.stderr)
    sys.exit(2)
