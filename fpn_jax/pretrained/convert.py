"""Name maps: a PyTorch state dict ↔ our variables, by patterns and kinds of leaves.

A map is a sequence of pairs `(ours, theirs)` of module names. Our names have slashes
and begin with `backbone/` or `head/`; PyTorch's have dots. Both names of a pair have
the same integer fields in braces, as in
`("backbone/stage{i}/block{j}/conv{k}", "layer{i}.{j}.conv{k}")`, so that each direction
is a substitution. A third item `(C, H, W)` is the shape of the map that a dense kernel
reads flattened: PyTorch flattens channels first, our layers flatten them last.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from fpn_jax.errors import InputError

Pair = tuple[str, str] | tuple[str, str, tuple[int, int, int]]
"""Our module name, PyTorch's, and for a dense kernel the shape of a flattened map."""

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
"""Our leaf → PyTorch's."""

IGNORED_LEAF = "num_batches_tracked"
"""PyTorch's count of training steps, which our variables do not have."""

LISTED = 8


class Slot(NamedTuple):
    """The entry of a state dict that corresponds to one of our arrays.

    Attributes:
      name: Name in the state dict.
      shape: Shape in the state dict.
      flattened: `(C, H, W)` of the map that a dense kernel reads flattened, or None.
    """

    name: str
    shape: tuple[int, ...]
    flattened: tuple[int, int, int] | None


class Misfit(InputError):
    """The names or shapes of weights are not those of the model."""


@functools.cache
def _regex(template: str) -> re.Pattern:
    parts, seen = [], set()
    for text, field in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        parts.append(re.escape(text))
        if field:
            parts.append(rf"(?P={field})" if field in seen else rf"(?P<{field}>\d+)")
            seen.add(field)
    return re.compile("".join(parts))


def their_module(module: str, pairs: Sequence[Pair]) -> tuple[str, Pair] | None:
    """Returns PyTorch's name of one of our modules and the pair, or None.

    Args:
      module: Our name, such as `"backbone/stage1/block0/conv1"`.
      pairs: The map; the first pair that matches is used.
    """
    for pair in pairs:
        if found := _regex(pair[0]).fullmatch(module):
            return pair[1].format(**found.groupdict()), pair
    return None


def our_module(name: str, pairs: Sequence[Pair]) -> str | None:
    """Returns our name of a PyTorch module, or None where no pair matches.

    Args:
      name: PyTorch's name, such as `"layer1.0.conv1"`.
      pairs: The map; the first pair that matches is used.
    """
    for pair in pairs:
        if found := _regex(pair[1]).fullmatch(name):
            return pair[0].format(**found.groupdict())
    return None


def slots(target: Mapping, pairs: Sequence[Pair]) -> dict[tuple[str, ...], Slot]:
    """Returns the entry of a state dict for every one of our arrays.

    Args:
      target: Our variables, or their shapes from `jax.eval_shape`:
        `{"params": {"backbone": …, "head": …}, "batch_stats": …}`; parts may be absent.
      pairs: The map.

    Returns:
      Path of an array, its collection first, → its slot.

    Raises:
      Misfit: The map has no name for one of our arrays.
    """
    found, nameless = {}, []
    for path, leaf in traverse_util.flatten_dict(dict(target)).items():
        module = their_module("/".join(path[1:-1]), pairs)
        if module is None or path[-1] not in LEAVES:
            nameless.append("/".join(path[1:]))
            continue
        theirs, pair = module
        flattened = pair[2] if len(pair) == 3 and path[-1] == "kernel" else None
        shape = tuple(leaf.shape)
        if path[-1] == "kernel":
            shape = shape[:1:-1] + shape[:2] if len(shape) == 4 else shape[::-1]
        found[path] = Slot(f"{theirs}.{LEAVES[path[-1]]}", shape, flattened)
    if nameless:
        raise Misfit(f"the name map does not contain {listed(nameless)}")
    return found


def to_state_dict(variables: Mapping, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Returns our variables as a PyTorch state dict.

    Args:
      variables: `{"params": {"backbone": …, "head": …}, "batch_stats": …}`.
      pairs: The map.

    Returns:
      PyTorch name → float32 array in PyTorch's layout: convolutions OIHW, dense kernels
      `(out, in)`.

    Raises:
      Misfit: The map has no name for one of our arrays.
    """
    arrays = traverse_util.flatten_dict(dict(variables))
    return {
        slot.name: _to_theirs(np.asarray(arrays[path], np.float32), slot)
        for path, slot in slots(variables, pairs).items()
    }


def from_state_dict(
    state: Mapping[str, np.ndarray],
    target: Mapping,
    pairs: Sequence[Pair],
    *,
    known: Iterable[str] = (),
) -> dict:
    """Returns a PyTorch state dict as our variables.

    Args:
      state: PyTorch name → array.
      target: Shapes of our variables; see `slots`.
      pairs: The map.
      known: Names that the state dict may contain as well, and that are skipped.

    Returns:
      float32 arrays in the structure of `target`.

    Raises:
      Misfit: Names are missing or unknown, or shapes differ; the message lists them.
      InputError: An array contains something else than finite floating-point numbers.
    """
    wanted = slots(target, pairs)
    state = dict(state)
    for slot in wanted.values():
        if slot.name in state:
            state[slot.name] = _as_dense(state[slot.name], slot)
    misfits = _misfits(state, wanted, set(known))
    if misfits:
        raise Misfit("; ".join(misfits))
    arrays = {
        path: _floats(slot.name, state[slot.name]) for path, slot in wanted.items()
    }
    broken = [
        wanted[path].name for path, x in arrays.items() if not np.isfinite(x).all()
    ]
    if broken:
        raise InputError(f"the weights are not finite numbers in {listed(broken)}")
    return traverse_util.unflatten_dict(
        {path: _to_ours(x, wanted[path]) for path, x in arrays.items()}
    )


def listed(words: Sequence[str]) -> str:
    """Returns the first words, separated by commas, and the number of the others.

    Example:
      >>> listed([f"fc{i}" for i in range(10)])
      'fc0, fc1, fc2, fc3, fc4, fc5, fc6, fc7 and 2 more'
    """
    rest = len(words) - LISTED
    return ", ".join(words[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _misfits(state: Mapping, wanted: Mapping, known: set[str]) -> list[str]:
    """Returns a clause for missing names, for unknown names, and for other shapes."""
    named = {slot.name: (path, slot) for path, slot in wanted.items()}
    missing = [
        f"{name} ({'/'.join(path[1:])})"
        for name, (path, _) in named.items()
        if name not in state
    ]
    extra = [
        name
        for name in state
        if name not in named and name not in known and not name.endswith(IGNORED_LEAF)
    ]
    shaped = [
        f"{name} is {np.shape(state[name])}, not {slot.shape} ({'/'.join(path[1:])})"
        for name, (path, slot) in named.items()
        if name in state and np.shape(state[name]) != slot.shape
    ]
    kinds = {"missing": missing, "extra": extra, "of another shape": shaped}
    return [f"{len(x)} {kind}: {listed(x)}" for kind, x in kinds.items() if x]


def _as_dense(x: np.ndarray, slot: Slot) -> np.ndarray:
    """Returns a convolution whose window is the whole map as a dense kernel."""
    window = slot.flattened[1:] if slot.flattened else (1, 1)
    if len(slot.shape) == 2 and np.ndim(x) == 4 and np.shape(x)[2:] == window:
        return x.reshape(len(x), -1)
    return x


def _floats(name: str, x: np.ndarray) -> np.ndarray:
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"weights {name} are {x.dtype}; they must be floating-point")
    return x.astype(np.float32)


def _to_theirs(x: np.ndarray, slot: Slot) -> np.ndarray:
    if slot.flattened:
        channels, height, width = slot.flattened
        x = x.reshape(height, width, channels, -1).transpose(3, 2, 0, 1)
    elif x.ndim == 4:
        x = x.transpose(3, 2, 0, 1)
    elif x.ndim == 2:
        x = x.T
    return np.ascontiguousarray(x.reshape(slot.shape))


def _to_ours(x: np.ndarray, slot: Slot) -> np.ndarray:
    if slot.flattened:
        x = x.reshape(-1, *slot.flattened).transpose(2, 3, 1, 0)
        x = x.reshape(-1, x.shape[-1])
    elif x.ndim == 4:
        x = x.transpose(2, 3, 1, 0)
    elif x.ndim == 2:
        x = x.T
    return np.ascontiguousarray(x)
