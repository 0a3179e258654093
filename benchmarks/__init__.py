"""Benchmarks: speed beside a peer, and failures. The package does not import them."""
