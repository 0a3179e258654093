"""Encoded image files to upright RGB arrays."""
