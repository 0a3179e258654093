"""How a backbone and the classification network of a peer are compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fpn_jax import heads
from fpn_jax.pretrained import convert
from tests.parity.peers import (
    from_torch,
    randomize,
    relative_difference,
    to_torch,
    torch,
)


def randomized(peer):
    """Gives a torch network random numbers with which a signal reaches every layer.

    With PyTorch's own it fades within a few, and biases are all that is compared.
    """
    peer = peer.to_empty(device="cpu").eval()
    for module in peer.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return randomize(peer)


def shapes_of(backbone):
    """Returns the shapes of a backbone's variables, as a name map wants them."""
    images = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    init = functools.partial(backbone.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), images)
    return {key: {"backbone": tree} for key, tree in shapes.items()}


def variables_of(backbone, peer, pairs):
    """Returns a torch network's weights as the backbone's variables, its head's not."""
    state = {key: x.numpy() for key, x in peer.state_dict().items()}
    slots = convert.slots(shapes_of(backbone), pairs)
    known = state.keys() - {slot.name for slot in slots.values()}
    ours = convert.from_state_dict(state, shapes_of(backbone), pairs, known=known)
    return {key: tree["backbone"] for key, tree in ours.items()}


def maps_of(peer, modules, images):
    """Returns level → what a torch network's module gives, for `{level: name}`."""
    found, handles = {}, []
    for level, name in modules.items():

        def keep(module, inputs, output, level=level):
            found.setdefault(level, output)

        handles.append(peer.get_submodule(name).register_forward_hook(keep))
    peer(images)
    for handle in handles:
        handle.remove()
    return dict(sorted(found.items()))


def compare(backbone, peer, pairs, modules, sizes=(224, 225, 97)):
    """Asserts that every level is the peer's, in evaluation, at every image size.

    In float64: in float32 the peer's own rounding, which grows from layer to layer with
    random weights, comes within a factor of two of what a wrong constant would do.
    """
    variables = variables_of(backbone, peer, pairs)
    double = backbone.clone(dtype=jnp.float64)
    for size in sizes:
        rng = np.random.default_rng(size)
        images = rng.normal(size=(1, size, size, 3))
        with jax.enable_x64(True):
            apply = jax.jit(functools.partial(double.apply, train=False))
            ours = jax.device_get(apply(jax.tree.map(jnp.float64, variables), images))
        with torch.no_grad():
            theirs = maps_of(peer.double(), modules, to_torch(images))
        assert list(ours) == list(theirs)
        for level, x in ours.items():
            assert x.dtype == np.float64
            difference = relative_difference(x, from_torch(theirs[level]))
            assert difference < 1e-9, (size, level, difference)


def assert_names_and_shapes_fit(backbone, peer, pairs, auxiliary=()):
    """Asserts that a map names exactly what the peer has, the classifier included.

    Args:
      backbone: Ours, with the coarsest level alone.
      peer: A torch network, on the device "meta" for speed.
      pairs: The map.
      auxiliary: How names begin that have nothing of ours.
    """
    image = jax.ShapeDtypeStruct(
        (1, backbone.native_size, backbone.native_size, 3), "f4"
    )
    pyramid = jax.eval_shape(
        lambda x: backbone.init_with_output(jax.random.key(0), x, train=False)[0], image
    )
    head = dict(backbone.paper_head)
    head = heads.build(head.pop("name"), num_classes=1000, **head)
    target = shapes_of(backbone)
    init = functools.partial(head.init, train=False)
    target["params"]["head"] = jax.eval_shape(init, jax.random.key(0), pyramid)[
        "params"
    ]
    ours = {slot.name: slot.shape for slot in convert.slots(target, pairs).values()}
    theirs = {
        key: tuple(x.shape)
        for key, x in peer.state_dict().items()
        if not key.endswith(convert.IGNORED_LEAF)
        and not key.startswith(auxiliary or " ")
    }
    assert ours.keys() == theirs.keys()
    for key, shape in ours.items():
        # A dense layer may be a convolution there.
        assert np.prod(shape) == np.prod(theirs[key]), key
        assert shape == theirs[key] or len(shape) != len(theirs[key]), key
