"""Metrics as sums that merge exactly."""
