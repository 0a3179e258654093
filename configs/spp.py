"""Spatial pyramid pooling of the coarsest map: 4 × 4, 2 × 2 and 1 × 1 bins.

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
    config.neck = ConfigDict({"name": "identity"})
    config.head = ConfigDict({"name": "spp", "bins": (4, 2, 1), "pool": "max"})
    return config
