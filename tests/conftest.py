"""Eight simulated CPU devices for every test, and absl flags as after start-up."""

import os

# More threads than devices, or steps of simulated devices wait for each other for ever.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)

if not flags.FLAGS.is_parsed():
    # grain reads absl flags when it makes its iterators.
    flags.FLAGS.mark_as_parsed()
