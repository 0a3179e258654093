"""A feature pyramid on top of a pyramid pooling module.

The variants are those of `configs/fpn.py`: smoke, folder, cats_vs_dogs.
"""

from ml_collections import ConfigDict

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant.

    Args:
      variant: One of the names above, or `""` for the default.
    """
    config = fpn.get_config(variant)
    config.neck.context = "ppm"
    return config
