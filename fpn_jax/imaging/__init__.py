"""Classical image pyramids: pure functions of arrays."""
