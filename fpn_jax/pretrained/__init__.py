"""Published weights → variables of our models, and back."""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from fpn_jax import backbones, errors, heads
from fpn_jax.errors import InputError
from fpn_jax.pretrained import convert, detectors
from fpn_jax.pretrained.convert import Misfit, Pair
from fpn_jax.pretrained.families import FAMILIES, family_of
from fpn_jax.pretrained.preprocessing import METADATA_KEY, RECIPES, preprocessing
from fpn_jax.pretrained.read import read

__all__ = [
    "load",
    "load_classifier",
    "load_detector",
    "preprocessing",
    "save",
    "to_state_dict",
]

LEAST_LIKENESS = 0.5
"""Share of names and shapes above which a file is reported as another backbone's."""

SELECTIONS = ("levels", "head_conv")
"""Arguments of backbones that only leave out layers."""


def load(name: str, path: str, **arguments: object) -> dict:
    """Returns a file's weights as the variables of a backbone.

    Classifiers in the file, auxiliary ones included, and stages that no level needs are
    skipped.

    Args:
      name: The backbone, one of `fpn_jax.backbones.names()`.
      path: A `.safetensors`, `.npz` or `.pth` file with the names of torchvision or
        timm.
      **arguments: Arguments of `fpn_jax.backbones.build`.

    Returns:
      `{"params": …, "batch_stats": …}`, float32, in the structure of the backbone's
      `init`: without "batch_stats" where it has no batch normalization.

    Raises:
      InputError: The backbone or an argument is unknown, the file cannot be read, or
        names or shapes do not fit; the message lists them all.
    """
    target = _of_backbone(name, arguments)
    rest = {key: x for key, x in arguments.items() if key not in SELECTIONS}
    complete = target if rest == arguments else _of_backbone(name, rest)
    variables = _fit(name, path, read(path).arrays, target, complete)
    return {key: parts["backbone"] for key, parts in variables.items()}


def load_classifier(
    name: str, path: str, num_classes: int = 1000, **arguments: object
) -> dict:
    """Returns a file's weights as the variables of the paper's own classifier.

    Args:
      name: The backbone.
      path: A `.safetensors`, `.npz` or `.pth` file with the names of torchvision or
        timm.
      num_classes: Number of classes in the file.
      **arguments: Arguments of the backbone; its one level is the coarsest, which the
        paper's classifier reads.

    Returns:
      `{"params": {"backbone": …, "head": …}, "batch_stats": {"backbone": …}}`, without
      "batch_stats" where there is no batch normalization.

    Raises:
      InputError: See `load`.
    """
    target = _of_classifier(name, num_classes, arguments)
    return _fit(name, path, read(path).arrays, target, complete=target)


def load_detector(name: str, path: str, target: Mapping) -> dict:
    """Returns the weights of a detector of torchvision as variables of a model.

    The model has the backbone `resnet50` with the levels 3, 4 and 5, the neck `fpn` of
    width 256 with two extra levels ("conv", or "conv_c5" for the second version), and
    the head `dense` or `fcos` with four convolutions. Number the classes as the file
    does: COCO's have 91, of which the first is not used. torchvision's locations begin
    at the corner of a cell: `offset=0.0` of the task.

    Args:
      name: One of `fpn_jax.pretrained.detectors.DETECTORS`.
      path: A `.safetensors`, `.npz` or `.pth` file with the names of torchvision.
      target: Shapes of the variables of the model, from `jax.eval_shape`.

    Returns:
      `{"params": …, "batch_stats": …}`, float32, in the structure of `target`.

    Raises:
      InputError: The detector is unknown, the file cannot be read, or names or shapes
        do not fit; the message lists them.
    """
    errors.one_of("detector", name, detectors.DETECTORS)
    pairs = detectors.DETECTORS[name]
    return convert.from_state_dict(read(path).arrays, target, pairs)


def to_state_dict(name: str, variables: Mapping) -> dict[str, np.ndarray]:
    """Returns variables as a state dict of the PyTorch model of a backbone.

    Args:
      name: The backbone.
      variables: Variables in the structure of `load` or `load_classifier`.

    Returns:
      Name → float32 array, for `load_state_dict` of the torchvision or timm model.

    Raises:
      InputError: The backbone is unknown or has no published weights.
    """
    if not set(variables["params"]) <= {"backbone", "head"}:
        variables = {key: {"backbone": part} for key, part in variables.items()}
    return convert.to_state_dict(variables, family_of(name).maps[name][0])


def save(path: str, name: str, variables: Mapping, recipe: str = "") -> None:
    """Writes variables as a `.safetensors` file with the names of the PyTorch model.

    Args:
      path: The file; its suffix is `.safetensors`.
      name: The backbone.
      variables: Variables in the structure of `load` or `load_classifier`.
      recipe: How they were trained, one of `RECIPES`, for the metadata of the file;
        empty writes none.

    Raises:
      InputError: The suffix, the backbone or the recipe is unknown.
    """
    if pathlib.Path(path).suffix != ".safetensors":
        raise InputError(f"weights {str(path)!r} must end in .safetensors")
    if recipe and recipe not in RECIPES:
        raise errors.unknown("recipe", recipe, RECIPES)
    metadata = {METADATA_KEY: recipe} if recipe else None
    save_file(to_state_dict(name, variables), path, metadata)


def _of_backbone(name: str, arguments: Mapping) -> dict:
    """Returns the shapes `{"params": {"backbone": …}, …}` of a backbone."""
    shapes, _ = _shapes(backbones.build(name, **arguments))
    return {key: {"backbone": part} for key, part in shapes.items()}


def _of_classifier(name: str, num_classes: int, arguments: Mapping) -> dict:
    """Returns the shapes of a backbone and of its paper's head."""
    coarsest = max(backbones.build(name, **arguments).channels)
    backbone = backbones.build(name, **{"levels": (coarsest,)} | arguments)
    shapes, pyramid = _shapes(backbone)
    shapes = {key: {"backbone": part} for key, part in shapes.items()}
    head = dict(backbone.paper_head)
    head = heads.build(head.pop("name"), num_classes=num_classes, **head)
    init = functools.partial(head.init, train=False)
    of_head = jax.eval_shape(init, jax.random.key(0), pyramid)
    return shapes | {"params": shapes["params"] | {"head": of_head["params"]}}


def _shapes(backbone) -> tuple[dict, dict]:
    """Returns the shapes of a backbone's variables and of its pyramid."""
    size = backbone.native_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = functools.partial(backbone.init_with_output, train=False)
    pyramid, variables = jax.eval_shape(init, jax.random.key(0), images)
    return dict(variables), pyramid


def _fit(
    name: str, path: str, state: Mapping, target: Mapping, complete: Mapping
) -> dict:
    """Returns a state dict as the variables of `target` by the map that fits best.

    Args:
      name: The backbone.
      path: File of the state dict, for the error message.
      state: PyTorch name → array.
      target: Shapes of the variables to return.
      complete: Shapes of the variables of the complete backbone; the file may contain
        them as well.
    """
    family = family_of(name)
    pairs = max(
        family.maps[name],
        # torchvision and timm may give the layers of a backbone the same names.
        key=lambda pairs: (
            _found(state, target, pairs),
            sum(1 for _ in _heads(state, pairs)),
        ),
    )
    known = {key for key in state if key.startswith(family.auxiliary)}
    if "head" not in target["params"]:
        known |= set(_heads(state, pairs))
    try:
        known |= {slot.name for slot in convert.slots(complete, pairs).values()}
        return convert.from_state_dict(state, target, pairs, known=known)
    except Misfit as error:
        hint = _resembled(name, state)
        raise Misfit(
            f"weights {str(path)!r} do not fit backbone {name!r}"
            + (f", but look like {hint!r}" if hint else "")
            + f": {error}"
        ) from error


def _found(state: Mapping, target: Mapping, pairs: Sequence[Pair]) -> int:
    try:
        return sum(slot.name in state for slot in convert.slots(target, pairs).values())
    except Misfit:
        return -1


def _heads(state: Mapping, pairs: Sequence[Pair]) -> Iterator[str]:
    for name in state:
        ours = convert.our_module(name.rpartition(".")[0], pairs)
        if ours is not None and ours.startswith("head/"):
            yield name


def _resembled(name: str, state: Mapping) -> str | None:
    """Returns the backbone that a state dict fits best, None where it is `name`."""
    likeness = functools.cache(lambda other: _likeness(other, state))
    named = {
        other: max(_named(state, pairs) for pairs in maps)
        for family in FAMILIES
        for other, maps in family.maps.items()
    }
    # Comparing shapes takes time: only maps that know the names are compared.
    most = max(named.values())
    if most < LEAST_LIKENESS:
        return None
    rivals = [other for other in named if named[other] == most]
    best = max(rivals, key=likeness)
    return best if likeness(best) > max(likeness(name), LEAST_LIKENESS) else None


def _named(state: Mapping, pairs: Sequence[Pair]) -> float:
    """Returns the share of the modules of a state dict that a map contains."""
    modules = {name.rpartition(".")[0] for name in state}
    return sum(convert.our_module(x, pairs) is not None for x in modules) / len(modules)


def _likeness(name: str, state: Mapping) -> float:
    """Returns the share of names and shapes that a backbone and a state dict share."""
    target, shares = _of_backbone(name, {}), []
    theirs = {
        (key, np.shape(x))
        for key, x in state.items()
        if not key.endswith(convert.IGNORED_LEAF)
    }
    for pairs in family_of(name).maps[name]:
        ours = {
            (slot.name, slot.shape) for slot in convert.slots(target, pairs).values()
        }
        shares.append(len(ours & theirs) / len(ours | theirs))
    return max(shares)
