"""Small Flax modules: whatever has parameters or randomness."""
