"""Records and batches, in NumPy and grain; never touches a device."""
