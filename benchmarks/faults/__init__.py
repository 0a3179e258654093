"""Faults that are caused on purpose, to measure how a training survives them."""
