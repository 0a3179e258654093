"""The baseline without a pyramid: the backbone's coarsest map alone.

Variants as of `configs/fpn.py`: smoke, folder, cats_vs_dogs.
"""

from ml_collections import ConfigDict

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = fpn.get_config(variant)
    config.neck = ConfigDict({"name": "identity"})
    return config
