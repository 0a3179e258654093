"""Faults on purpose: what really happens to a training, done to it again and again."""
