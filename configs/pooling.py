"""Fine-tunes like `configs/finetune.py`, with any pooling of the pyramid's levels.

`--config=configs/pooling.py:POOL` chooses the pooling, a key of `POOLINGS`.
"""

from ml_collections import ConfigDict

from configs import finetune

POOLINGS = {
    "average": {},
    "max": {},
    "min": {},
    "median": {},
    "k_max": {"k": 4},
    "l2": {},
    "lp": {"p": 3.0},
    "gem": {},
    "mixed": {},
    "soft": {},
    "stochastic": {},
    "lip": {},
    "covariance": {"width": 32},
}
"""Name of a pooling → its arguments."""


def get_config(variant: str = "average") -> ConfigDict:
    """Returns the config with a pooling.

    Args:
      variant: A key of `POOLINGS`.

    Raises:
      ValueError: The variant is unknown.
    """
    if variant not in POOLINGS:
        choices = ", ".join(POOLINGS)
        raise ValueError(f"variant {variant!r} is unknown; choose one of {choices}")
    config = finetune.get_config()
    config.head = ConfigDict(
        {
            "name": "pool",
            "pool": {"name": variant, **POOLINGS[variant]},
            "dropout": config.head.dropout,
        }
    )
    return config
