"""The peers: PyTorch, torchvision, timm, segmentation_models.pytorch.

`from peers import torch, torchvision` in a parity test; without the extra `parity` the
whole file is skipped.
"""

import importlib.util
import pathlib
import re
import warnings

import jax
import numpy as np
import pytest

WHY = "the peers are the extra 'parity'"

with warnings.catch_warnings():
    # Only our own warnings are errors.
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=WHY)
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip(WHY, allow_module_level=True)
    try:
        import torchvision
    except RuntimeError:
        # Compiled operators do not load beside a torch of another build, and the import
        # stops at their absent schemas. None is used here; an empty one each will do.
        folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
        source = pathlib.Path(folder, "_meta_registrations.py").read_text()
        pattern = r'register_(?:meta\("|fake\("torchvision::)(\w+)"'
        LIBRARY = torch.library.Library("torchvision", "DEF")
        for name in sorted(set(re.findall(pattern, source))):
            LIBRARY.define(f"{name}(Tensor x) -> Tensor")
        import torchvision
    timm = pytest.importorskip("timm", reason=WHY)
    smp = pytest.importorskip("segmentation_models_pytorch", reason=WHY)

__all__ = ["from_torch", "relative_difference", "smp", "timm", "to_torch", "torch"]
__all__ += ["randomize", "torchvision"]

torch.set_num_threads(2)


def to_torch(x: np.ndarray):
    """Returns NHWC as a torch NCHW tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def from_torch(x) -> np.ndarray:
    """Returns a torch NCHW tensor as NHWC."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def randomize(model, seed: int = 0):
    """Gives every norm layer statistics, scales and shifts that a test can tell apart.

    A fresh one has mean 0 and variance 1, which would hide a wrong order of them.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.2, 0.2)
                uniform(module.running_mean, -0.2, 0.2)
                uniform(module.running_var, 0.5, 1.5)
    return model


def relative_difference(ours: jax.Array, theirs: np.ndarray) -> float:
    """Returns `max |ours − theirs| / max |theirs|`, after comparing shapes."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
