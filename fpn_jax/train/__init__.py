"""Training: the steps, the loop, checkpoints, and evaluation of a split."""
