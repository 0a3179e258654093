"""Feature pyramids in JAX and Flax, on cat and dog images."""

__version__ = "0.1.0"
