"""Weights against the peers: state dicts there and back, logits of published ones."""

import functools
import pathlib
import tempfile

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from fpn_jax import backbones, heads, pretrained
from fpn_jax.pretrained import convert, vgg
from fpn_jax.pretrained.families import family_of
from fpn_jax.pretrained.read import Weights
from tests.parity.classifiers import randomized
from tests.parity.peers import (
    randomize,
    relative_difference,
    timm,
    to_torch,
    torch,
    torchvision,
)

WEIGHTS = pathlib.Path(__file__).parents[2] / "../shared/weights"
FILE = WEIGHTS / "mobilenet_v2_imagenet_torchvision.safetensors"
needs_weights = pytest.mark.skipif(
    not FILE.exists(), reason="../shared/weights has no MobileNetV2"
)
TIMM_NAMES = {"mobilenet_v1": "mobilenetv1_100", "mobilenet_v2": "mobilenetv2_100"}
UNTRAINED = {"googlenet", "inception_v3"}
"""torchvision's slow initial values can be switched off."""

NAMES = (
    *("resnet18", "resnet50", "vgg11", "vgg16_bn", "alexnet", "googlenet"),
    *("inception_v3", "mobilenet_v1", "mobilenet_v2", "efficientnet_b0"),
)
"""Of every family those whose blocks differ; more of them have no further names."""


def of_torchvision(name):
    arguments = {"init_weights": False} if name in UNTRAINED else {}
    return getattr(torchvision.models, name)(weights=None, **arguments)


def of_timm(name):
    return timm.create_model(TIMM_NAMES.get(name, name))


PEERS = [(name, of_torchvision) for name in NAMES if name != "mobilenet_v1"]
PEERS += [(name, of_timm) for name in NAMES if name not in ("alexnet", "googlenet")]


def arrays_of(peer):
    return {key: x.numpy() for key, x in peer.state_dict().items()}


@functools.partial(
    jax.jit,
    static_argnums=0,
)
def compiled(apply, variables, x):
    return apply(variables, x, train=False)


def logits(name, variables, images, **arguments):
    """Returns what the paper's classifier says."""
    coarsest = max(backbones.build(name).levels)
    backbone = backbones.build(name, levels=(coarsest,), **arguments)
    head = dict(backbone.paper_head)
    head = heads.build(head.pop("name"), num_classes=1000, **head)
    parts = [
        {key: tree[part] for key, tree in variables.items() if part in tree}
        for part in ("backbone", "head")
    ]
    pyramid = compiled(backbone.apply, parts[0], images)
    return compiled(head.apply, parts[1], pyramid)["logits"]


def shape_of(x):
    """Returns the shape; a dense kernel's of a convolution over its whole map."""
    whole = x.ndim == 4 and (x.shape[-1] == 7 or x.shape[:2] == (4096, 4096))
    return (len(x), x[0].numel()) if whole and len(x) == 4096 else tuple(x.shape)


@pytest.mark.parametrize(("name", "make"), PEERS)
def test_names_and_shapes_are_the_peers(name, make):
    with torch.device("meta"):
        peer = make(name)
    family = family_of(name)
    theirs = {
        key: shape_of(x)
        for key, x in peer.state_dict().items()
        if not key.endswith(convert.IGNORED_LEAF)
        and not key.startswith(family.auxiliary)
    }
    target = pretrained._of_classifier(name, 1000, {})
    found = [
        {slot.name: slot.shape for slot in convert.slots(target, pairs).values()}
        for pairs in family.maps[name]
    ]
    best = max(found, key=lambda ours: len(ours.keys() & theirs.keys()))
    assert best == theirs


@pytest.mark.parametrize(
    ("name", "make"),
    [("mobilenet_v2", of_torchvision), ("mobilenet_v1", of_timm)],
)
def test_theirs_to_ours_to_theirs_is_the_identity(name, make, tmp_path):
    theirs = arrays_of(randomize(make(name).eval()))
    path = tmp_path / "x.npz"
    np.savez(path, **theirs)
    back = pretrained.to_state_dict(name, pretrained.load_classifier(name, str(path)))
    assert back.keys() == {k for k in theirs if not k.endswith(convert.IGNORED_LEAF)}
    for key, x in back.items():
        np.testing.assert_array_equal(x, theirs[key])


def test_the_peer_takes_what_we_write(tmp_path):
    peer = torchvision.models.mobilenet_v2().eval()
    np.savez(tmp_path / "x.npz", **arrays_of(peer))
    ours = pretrained.load_classifier("mobilenet_v2", str(tmp_path / "x.npz"))
    state = pretrained.to_state_dict("mobilenet_v2", ours)
    peer.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()})


def with_random_weights(name):
    """Returns torchvision's network, whose signal reaches the logits."""
    with torch.device("meta"):
        peer = of_torchvision(name)
    peer = randomized(peer)
    for module in peer.modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / module.in_features) ** 0.5
            torch.nn.init.uniform_(module.weight, -bound, bound)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return peer


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("alexnet", 224, {"padding": "paper"}),
        ("vgg11", 224, {"padding": "paper"}),
        ("resnet18", 97, {}),
    ],
)
def test_logits_of_random_weights_are_those_of_the_peer(name, size, arguments):
    """Among them dense layers behind a flattened map, whose order is another."""
    peer = with_random_weights(name)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = peer(to_torch(images)).numpy()
    # Half a gigabyte, of which `tmp_path` would keep some.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.safetensors"
        save_file(arrays_of(peer), path)
        variables = pretrained.load_classifier(name, path, **arguments)
    ours = logits(name, variables, images, **arguments)
    assert relative_difference(ours, theirs) < 1e-4


@needs_weights
def test_safetensors_and_pth_are_the_same():
    of_pth = pretrained.load("mobilenet_v2", str(FILE.with_suffix(".pth")))
    of_safetensors = pretrained.load("mobilenet_v2", str(FILE))
    assert jax.tree.structure(of_pth) == jax.tree.structure(of_safetensors)
    assert jax.tree.all(jax.tree.map(np.array_equal, of_pth, of_safetensors))


@needs_weights
def test_logits_of_published_weights_are_those_of_the_peer():
    peer = torchvision.models.mobilenet_v2().eval()
    state = torch.load(FILE.with_suffix(".pth"), weights_only=True)
    peer.load_state_dict(state)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = peer(to_torch(images)).numpy()
    variables = pretrained.load_classifier("mobilenet_v2", str(FILE))
    ours = logits("mobilenet_v2", variables, images, padding="symmetric")
    assert relative_difference(ours, theirs) < 1e-4


CLAIMED = [(name, of_torchvision) for name in vgg.VARIANTS]
CLAIMED += [(name, of_timm) for name in vgg.VARIANTS]


@pytest.mark.parametrize(("name", "make"), CLAIMED)
def test_every_vgg_of_both_publishers_is_loaded(name, make, monkeypatch):
    """The arrays are zeros that take no memory: only names and shapes matter."""
    with torch.device("meta"):
        peer = make(name)
    arrays = {
        key: np.broadcast_to(np.float32(0), tuple(x.shape))
        for key, x in peer.state_dict().items()
    }
    monkeypatch.setattr(pretrained, "read", lambda path: Weights(arrays, {}))
    assert "stage5" in pretrained.load(name, "file.safetensors")["params"]
    # Loading the classifier of a VGG copies 500 MB; the larger ones have the same head.
    if name == "vgg11_bn":
        parts = pretrained.load_classifier(name, "file.safetensors")["params"]
        assert parts.keys() == {"backbone", "head"}
