"""Whether two commits measure the same, byte for byte."""
