"""Measurements side by side; never imported by the package."""
