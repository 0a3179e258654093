"""Records and batches, in NumPy and grain; imports no JAX and uses no device."""
