"""Exporters write a trained model to a file for other programs."""

from fpn_jax.exporters import stablehlo

EXPORTERS = {".stablehlo": stablehlo.write}
"""Suffix of the file → function of `(predictor, path)` that writes the file."""
