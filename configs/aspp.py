"""Atrous spatial pyramid pooling on the coarsest map.

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
    # The paper's rates 6, 12 and 18 are for maps of stride 16 with more than 18 cells
    # per side. On a small map, only the centre of such a kernel is inside the map.
    config.neck = ConfigDict(
        {"name": "aspp", "width": config.neck.width, "rates": (1, 2, 3)}
    )
    return config
