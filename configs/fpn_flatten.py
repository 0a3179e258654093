"""A feature pyramid whose levels are flattened into fully connected layers.

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
    config.head = ConfigDict({"name": "flatten", "combine": "sum", "dropout": 0.0})
    return config
