"""Exporters: a trained model as a file for other programs, by the file's suffix."""

from fpn_jax.exporters import stablehlo

EXPORTERS = {".stablehlo": stablehlo.write}
"""Suffix → function of `(predictor, path)` that writes the file."""
