"""Pure functions of arrays: no Flax, no state, no config."""
