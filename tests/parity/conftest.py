"""What every test against a peer needs."""

import pytest


@pytest.fixture(autouse=True)
def seeded():
    """Seeds PyTorch, whose layers begin with numbers of one generator for all."""
    torch = pytest.importorskip("torch", reason="the peers are the extra 'parity'")
    torch.manual_seed(0)
