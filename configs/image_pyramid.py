"""The classical baseline: one backbone on a Gaussian pyramid of the image.

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
    config.neck = ConfigDict({"name": "image_pyramid", "num_scales": 2})
    return config
