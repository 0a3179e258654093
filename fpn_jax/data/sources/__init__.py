"""Sources of records: drawn, folder, tfds."""
