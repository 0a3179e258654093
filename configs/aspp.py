"""Atrous spatial pyramid pooling on the coarsest map.

Variants as of `configs/fpn.py`: smoke, folder, cats_vs_dogs.
"""

from ml_collections import ConfigDict

from configs import fpn


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant."""
    config = fpn.get_config(variant)
    # The paper's 6, 12, 18 are for maps of stride 16 and more than 18 cells a side: on
    # a few cells nothing but the centre of such a kernel lies inside the map.
    config.neck = ConfigDict(
        {"name": "aspp", "width": config.neck.width, "rates": (1, 2, 3)}
    )
    return config
