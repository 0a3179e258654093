"""The one-file HTML report of a run."""
