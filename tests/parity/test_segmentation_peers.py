"""Segmentation against segmentation_models.pytorch, torchvision and plain PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpn_jax import backbones, heads, necks
from fpn_jax.ops import pixel_losses
from fpn_jax.ops.upsampling import resize_bilinear
from tests.parity.peers import (
    from_torch,
    randomize,
    relative_difference,
    smp,
    to_torch,
    torch,
)
from tests.parity.peers import torchvision as tv

CHANNELS = {1: 8, 2: 12, 3: 16, 4: 20, 5: 24}
SIZE = (64, 96)
CLASSES = 3
HEAD = smp.base.SegmentationHead


def a_pyramid(levels):
    rng = np.random.default_rng(0)
    return {
        level: rng.normal(
            size=(2, *(side // 2**level for side in SIZE), CHANNELS[level])
        ).astype(np.float32)
        for level in levels
    }


def features_of(pyramid):
    """Returns what a decoder of smp reads: the image, and every level."""
    image = torch.zeros(2, 3, *SIZE)
    maps = [torch.zeros(2, CHANNELS[k], SIZE[0] >> k, SIZE[1] >> k) for k in (1, 2)]
    found = {level: to_torch(x) for level, x in pyramid.items()}
    finest = min(found)
    return [image, *maps[: finest - 1], *(found[level] for level in sorted(found))]


def conv(module):
    weights = {"kernel": module.weight.detach().numpy().transpose(2, 3, 1, 0)}
    if module.bias is not None:
        weights["bias"] = module.bias.detach().numpy()
    return weights


def norm(module):
    found = {"scale": module.weight, "bias": module.bias}
    return {name: value.detach().numpy() for name, value in found.items()}


class Variables:
    """Our variables, made from the peer's modules, by dotted names."""

    def __init__(self):
        self.params, self.batch_stats = {}, {}

    def put(self, tree, name, leaf):
        *parents, last = name.split(".")
        for parent in parents:
            tree = tree.setdefault(parent, {})
        tree[last] = leaf

    def conv(self, name, module):
        self.put(self.params, name, conv(module))

    def conv_norm(self, name, convolution, normalization=None):
        self.conv(f"{name}.conv", convolution)
        if normalization is not None:
            self.put(self.params, f"{name}.norm", norm(normalization))
        if isinstance(normalization, torch.nn.BatchNorm2d):
            mean, var = normalization.running_mean, normalization.running_var
            statistics = {"mean": mean.numpy(), "var": var.numpy()}
            self.put(self.batch_stats, f"{name}.norm", statistics)

    def separable(self, name, pair, normalization):
        depthwise, pointwise = pair
        kernel = depthwise.weight.detach().numpy().transpose(2, 3, 1, 0)
        self.put(self.params, f"{name}.depthwise", {"kernel": kernel})
        self.conv_norm(f"{name}.pointwise", pointwise, normalization)

    def of(self, part):
        trees = {"params": self.params, "batch_stats": self.batch_stats}
        return {key: tree[part] for key, tree in trees.items() if part in tree}


def difference(neck, head, variables, decoder, peer_head, pyramid, scale):
    decoder, peer_head = decoder.eval(), peer_head.eval()
    with torch.no_grad():
        expected = from_torch(peer_head(decoder(features_of(pyramid))))

    @jax.jit
    def ours(pyramid):
        maps = neck.apply(variables.of("neck"), pyramid, train=False)
        logits = head.apply(variables.of("head"), maps, train=False)["mask_logits"]
        size = tuple(side * scale for side in logits.shape[1:3])
        return resize_bilinear(logits, size, align_corners=True)

    return relative_difference(ours(pyramid), expected)


def test_fpn_with_the_head_of_panoptic_fpn():
    pyramid = a_pyramid((2, 3, 4, 5))
    decoder = smp.decoders.fpn.decoder.FPNDecoder(
        [3, *CHANNELS.values()], pyramid_channels=32, segmentation_channels=64
    )
    peer_head = HEAD(64, CLASSES, kernel_size=1, upsampling=4)
    made = Variables()
    made.conv("neck.lateral5.conv", decoder.p5)
    for level in (4, 3, 2):
        made.conv(f"neck.lateral{level}.conv", getattr(decoder, f"p{level}").skip_conv)
    for level, branch in zip((5, 4, 3, 2), decoder.seg_blocks, strict=True):
        for index, block in enumerate(branch.block, 1):
            name = f"head.level{level}_conv{index}"
            made.conv_norm(name, block.block[0], block.block[1])
    made.conv("head.logits", peer_head[0])
    neck = necks.build("fpn", width=32, smooth=False)
    head = heads.build(
        "semantic_fpn", num_mask_classes=CLASSES, width=64, align_corners=True
    )
    assert difference(neck, head, made, decoder, peer_head, pyramid, 4) < 1e-4


def test_pspnet():
    pyramid = a_pyramid((3,))
    decoder = randomize(
        smp.decoders.pspnet.decoder.PSPDecoder([3, 8, 12, 16], out_channels=24)
    )
    peer_head = HEAD(24, CLASSES, kernel_size=3, upsampling=8)
    made = Variables()
    for bins, block in zip((1, 2, 3, 6), decoder.psp.blocks, strict=True):
        convolution, normalization, *_ = block.pool[1]
        batch = normalization if bins > 1 else None
        made.conv_norm(f"neck.ppm.bin{bins}", convolution, batch)
    made.conv_norm("head.hidden", decoder.conv[0], decoder.conv[1])
    made.conv("head.logits", peer_head[0])
    head = heads.build(
        "class_map",
        num_mask_classes=CLASSES,
        width=24,
        kernel_size=1,
        last_kernel_size=3,
    )
    ours = necks.build("ppm"), head, made
    assert difference(*ours, decoder, peer_head, pyramid, 8) < 1e-4


def test_deeplab_v3_plus():
    # The peer's coarsest map has stride 16, which is level 4 here.
    pyramid = a_pyramid((2, 3, 4))
    channels = [3, 8, 12, 16, 20]
    decoder = randomize(
        smp.decoders.deeplabv3.decoder.DeepLabV3PlusDecoder(
            channels,
            encoder_depth=4,
            out_channels=32,
            atrous_rates=(1, 2, 3),
            output_stride=16,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
    )
    peer_head = HEAD(32, CLASSES, kernel_size=1, upsampling=4)
    made = Variables()
    aspp, separable, normalization, _ = decoder.aspp
    point, *dilated, image = aspp.convs
    made.conv_norm("neck.aspp.point", point[0], point[1])
    made.conv_norm("neck.aspp.image", image[1], image[2])
    made.conv_norm("neck.aspp.project", aspp.project[0], aspp.project[1])
    for index, branch in enumerate(dilated, 1):
        made.separable(f"neck.aspp.dilated{index}", branch[0], branch[1])
    made.separable("neck.context1", separable, normalization)
    made.conv_norm("neck.fine", decoder.block1[0], decoder.block1[1])
    made.separable("neck.refine1", decoder.block2[0], decoder.block2[1])
    made.conv("head.logits", peer_head[0])
    neck = necks.build(
        "deeplab",
        width=32,
        rates=(1, 2, 3),
        context_convolutions=1,
        convolutions=1,
        separable=True,
        align_corners=True,
    )
    head = heads.build("class_map", num_mask_classes=CLASSES)
    assert difference(neck, head, made, decoder, peer_head, pyramid, 4) < 1e-4


def test_unet_with_nearest_upsampling():
    pyramid = a_pyramid((1, 2, 3, 4, 5))
    widths = (32, 24, 16, 12, 8)
    decoder = randomize(
        smp.decoders.unet.decoder.UnetDecoder([3, *CHANNELS.values()], widths)
    )
    peer_head = HEAD(8, CLASSES, kernel_size=3)
    made = Variables()
    for level, block in zip((4, 3, 2, 1, 0), decoder.blocks, strict=True):
        for index, layer in enumerate((block.conv1, block.conv2), 1):
            made.conv_norm(f"neck.level{level}_conv{index}", layer[0], layer[1])
    made.conv("head.logits", peer_head[0])
    neck = necks.build("unet", widths=widths, finer_levels=1)
    head = heads.build("class_map", num_mask_classes=CLASSES, last_kernel_size=3)
    assert difference(neck, head, made, decoder, peer_head, pyramid, 1) < 1e-4


def test_deeplab_v3_of_torchvision():
    x = a_pyramid((4,))[4]
    peer = tv.models.segmentation.deeplabv3.DeepLabHead(20, CLASSES, (1, 2, 3))
    peer = randomize(peer).eval()
    aspp, convolution, normalization, _, last = peer
    made = Variables()
    point, *dilated, image = aspp.convs
    made.conv_norm("neck.aspp.point", point[0], point[1])
    made.conv_norm("neck.aspp.image", image[1], image[2])
    made.conv_norm("neck.aspp.project", aspp.project[0], aspp.project[1])
    for index, branch in enumerate(dilated, 1):
        made.conv_norm(f"neck.aspp.dilated{index}", branch[0], branch[1])
    made.conv_norm("head.hidden", convolution, normalization)
    made.conv("head.logits", last)
    neck = necks.build("aspp", rates=(1, 2, 3))
    head = heads.build("class_map", num_mask_classes=CLASSES, width=256)
    with torch.no_grad():
        expected = from_torch(peer(to_torch(x)))
    maps = neck.apply(made.of("neck"), {4: x}, train=False)
    logits = head.apply(made.of("head"), maps, train=False)["mask_logits"]
    assert relative_difference(logits, expected) < 1e-4


class TorchUNet(torch.nn.Module):
    """The network of the U-Net paper with padded convolutions, in plain PyTorch."""

    def __init__(self, width, classes):
        super().__init__()
        nn = torch.nn
        widths = [width * 2**level for level in range(5)]

        def twice(i, o):
            return nn.Sequential(
                *(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(o, o, 3, padding=1), nn.ReLU()),
            )

        inputs = [3, *widths[:-1]]
        self.down = nn.ModuleList(map(twice, inputs, widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1])
        self.merge = nn.ModuleList(twice(2 * w, w) for w in widths[:-1])
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        maps = []
        for level, block in enumerate(self.down):
            x = block(torch.nn.functional.max_pool2d(x, 2) if level else x)
            maps.append(x)
        for level in (3, 2, 1, 0):
            up = self.up[level](x)
            x = self.merge[level](torch.cat([up, maps[level]], 1))
        return self.last(x)


def test_the_unet_of_the_paper():
    peer = TorchUNet(4, CLASSES).eval()
    made = Variables()
    for level, block in enumerate(peer.down):
        for index, layer in ((1, block[0]), (2, block[2])):
            made.conv(f"backbone.level{level}_conv{index}.conv", layer)
    for level in range(4):
        up = peer.up[level]
        # The kernel of a transposed convolution is [in, out, h, w].
        kernel = up.weight.detach().numpy().transpose(2, 3, 0, 1)
        weights = {"kernel": kernel, "bias": up.bias.detach().numpy()}
        made.put(made.params, f"neck.upsample{level}", weights)
        for index, layer in ((1, peer.merge[level][0]), (2, peer.merge[level][2])):
            made.conv(f"neck.level{level}_conv{index}.conv", layer)
    made.conv("head.logits", peer.last)
    images = np.random.default_rng(0).normal(size=(2, 32, 48, 3)).astype(np.float32)
    backbone, neck, head = the_unet(4, CLASSES)

    @jax.jit
    def ours(x):
        maps = backbone.apply(made.of("backbone"), x, train=False)
        maps = neck.apply(made.of("neck"), maps, train=False)
        return head.apply(made.of("head"), maps, train=False)["mask_logits"]

    with torch.no_grad():
        expected = from_torch(peer(to_torch(images)))
    assert relative_difference(ours(images), expected) < 1e-4


def the_unet(width, classes):
    widths = tuple(width * 2**level for level in (3, 2, 1, 0))
    neck = necks.build("unet", widths=widths, upsampling="transposed", norm="none")
    head = heads.build("class_map", num_mask_classes=classes)
    return backbones.build("unet", width=width), neck, head


LOSSES = {
    "cross_entropy": lambda: torch.nn.CrossEntropyLoss(ignore_index=255),
    "dice": lambda: smp.losses.DiceLoss("multiclass", ignore_index=255),
    "lovasz": lambda: smp.losses.LovaszLoss(
        "multiclass", per_image=True, ignore_index=255
    ),
    "focal": lambda: smp.losses.FocalLoss("multiclass", ignore_index=255),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_of_a_batch_of_one(name):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 6, 7, 3)).astype(np.float32)
    mask = rng.integers(3, size=(1, 6, 7))
    mask[rng.random(mask.shape) < 0.2] = 255
    x = to_torch(logits).requires_grad_()
    expected = LOSSES[name]()(x, torch.from_numpy(mask))
    expected.backward()
    ours = functools.partial(pixel_losses.LOSSES[name], mask=jnp.asarray(mask))
    value, gradient = jax.value_and_grad(lambda y: ours(y).sum())(logits)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, from_torch(x.grad), atol=1e-6)


def test_focal_is_that_of_torchvision():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 6, 7, 3)).astype(np.float32)
    mask = rng.integers(3, size=(1, 6, 7))
    target = torch.nn.functional.one_hot(torch.from_numpy(mask), 3).float()
    expected = tv.ops.sigmoid_focal_loss(torch.from_numpy(logits), target, alpha=0.25)
    found = pixel_losses.focal(logits, mask, alpha=0.25)
    np.testing.assert_allclose(found[0], expected.mean(), rtol=1e-5)
