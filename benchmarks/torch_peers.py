"""The same networks in PyTorch: torchvision's backbones and FPN, and a linear layer.

Needs the extra `benchmark`.
"""

import importlib.util
import pathlib
import re
import sys
import warnings

try:
    import torch
except ModuleNotFoundError:
    sys.exit("the peers are not installed: pip install -e '.[benchmark]'")


def import_torchvision():
    """Returns torchvision, even if its compiled operators do not load.

    The operators do not load with a torch of another build, and then the import fails,
    because their schemas are missing. No network here needs the operators, so empty
    schemas are enough.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        sys.exit("the peers are not installed: pip install -e '.[benchmark]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision
        except RuntimeError:
            folder = pathlib.Path(spec.submodule_search_locations[0])
            source = (folder / "_meta_registrations.py").read_text()
            pattern = r'register_(?:meta\("|fake\("torchvision::)(\w+)"'
            library = torch.library.Library("torchvision", "DEF")
            for name in sorted(set(re.findall(pattern, source))):
                library.define(f"{name}(Tensor x) -> Tensor")
            # Keep a reference: a garbage-collected library removes its schemas.
            import_torchvision.library = library
            import torchvision
    return torchvision


torchvision = import_torchvision()

NODES = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    # The inputs of the max-pooling layers, which are levels 2 to 5 of our VGG.
    "vgg16": ("features.9", "features.16", "features.23", "features.30"),
    "mobilenet_v2": ("features.3", "features.6", "features.13", "features.18"),
    "efficientnet_b0": ("features.2", "features.3", "features.5", "features.8"),
}
"""Backbone → the nodes that compute its maps of strides 4, 8, 16 and 32."""


class Classifier(torch.nn.Module):
    """Backbone, an optional FPN of 256 channels, average pooling, linear layer.

    Args:
      backbone: One of `NODES`.
      fpn: Whether there is a pyramid; without one only the coarsest map is pooled.
      size: Height and width of the images, in pixels.
    """

    def __init__(self, backbone: str, *, fpn: bool, size: int):
        super().__init__()
        from torchvision.models import feature_extraction

        nodes = NODES[backbone][0 if fpn else -1 :]
        network = getattr(torchvision.models, backbone)(weights=None)
        self.backbone = feature_extraction.create_feature_extractor(
            network, {node: str(level) for level, node in enumerate(nodes)}
        )
        with torch.no_grad():
            maps = self.backbone.eval()(torch.zeros(1, 3, size, size)).values()
        self.backbone.train()
        channels = [x.shape[1] for x in maps]
        self.neck = None
        if fpn:
            self.neck = torchvision.ops.FeaturePyramidNetwork(channels, 256)
            channels = [256] * len(channels)
        self.logits = torch.nn.Linear(sum(channels), 2)

    def forward(self, x):
        """Returns logits `[B, 2]` of normalized images `[B, 3, H, W]`."""
        maps = self.backbone(x)
        if self.neck is not None:
            maps = self.neck(maps)
        return self.logits(torch.cat([x.mean((2, 3)) for x in maps.values()], 1))
