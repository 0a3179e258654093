"""Our train step compared with the same network in PyTorch, in turns.

    python -m benchmarks.train_step [--cases=resnet18,…] [--repeats=7]

On a CPU both compute in float32, and PyTorch also in bfloat16 (`torch_bf16`). On a GPU
both compute in bfloat16 on batches of 256 at 224 px; PyTorch is channels-last, compiled
with "max-autotune" (which uses CUDA graphs) and with cuDNN's autotuning. Nothing is
timed before the numbers of parameters and FLOPs agree. Each contender has a process of
its own. `peak_mib` is the peak memory of that process during steps, `life_peak_mib`
its peak over its whole life, which includes compilation.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks import memory, stepping, timing


class Case(NamedTuple):
    """A network, and a batch that a CPU can train.

    Attributes:
      backbone: Name of the backbone, the same in torchvision.
      fpn: Whether there is a pyramid.
      images: Images per step.
      size: Height and width of the images, in pixels.
    """

    backbone: str
    fpn: bool
    images: int
    size: int


CASES = {
    "resnet18": Case("resnet18", False, 16, 128),
    "resnet50_fpn": Case("resnet50", True, 8, 160),
    "vgg16_fpn": Case("vgg16", True, 8, 96),
    "mobilenet_v2_fpn": Case("mobilenet_v2", True, 16, 128),
    "efficientnet_b0_fpn": Case("efficientnet_b0", True, 16, 128),
}
WARM_UP = 3
"""Steps at the start of each turn that are not counted; the very first ones compile."""

GPU_BATCH = {"images": 256, "size": 224}


def arguments_of(case: Case, dtype: str) -> tuple[str, ...]:
    """Returns the command line of a case.

    Mixup, CutMix, the moving average and clipping are off, because PyTorch's loop does
    not have them.

    Args:
      case: The network and the batch.
      dtype: Name of the type to compute in.
    """
    neck = "fpn" if case.fpn else "identity"
    fpn = ("--config.neck.width=256", "--config.neck.levels=(2,3,4,5)")
    return (
        f"--config=configs/{neck}.py:cats_vs_dogs",
        *(fpn if case.fpn else ()),
        f"--config.backbone.name={case.backbone}",
        f"--config.data.image_size={case.size}",
        f"--config.data.global_batch_size={case.images}",
        f"--config.model.dtype={dtype}",
        "--config.mix.mixup_alpha=0.0",
        "--config.mix.cutmix_alpha=0.0",
        "--config.train.ema_decay=0.0",
        "--config.optimizer.clip_norm=0.0",
    )


class Ours:
    """Our train step."""

    arguments_of = staticmethod(arguments_of)

    def __init__(self, case: Case, dtype: str):
        self.stepping = stepping.Stepping(self.arguments_of(case, dtype))
        self.parameters = self.stepping.parameters

    def forward_flops(self, size: int) -> float:
        """Returns the operations of a forward pass of one image, before optimization.

        Args:
          size: Height and width of the image, in pixels.
        """
        import jax
        import jax.numpy as jnp

        model = self.stepping.experiment.model
        image = jnp.zeros((1, size, size, 3))
        variables = jax.eval_shape(
            lambda: model.init(jax.random.key(0), image, train=False)
        )
        apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
        return float(apply.lower(variables, image).cost_analysis()["flops"])

    def run(self, steps: int) -> None:
        """Takes steps, and returns when the last one has ended."""
        self.stepping.run(steps)


class Theirs:
    """PyTorch's train step: eager on a CPU, compiled and tuned on a GPU."""

    def __init__(self, case: Case, dtype: str):
        import torch

        self._torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        torch.manual_seed(0)
        model = self.network(case)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self._optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=1e-3,
            momentum=0.9,
            weight_decay=5e-5,
            nesterov=True,
            **({"fused": True} if self.device == "cuda" else {}),
        )
        shape = (case.images, 3, case.size, case.size)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
        self._images = pixels.to(self.device, memory_format=torch.channels_last)
        self._labels = self.labels(case).to(self.device)
        self._autocast = dtype == "bfloat16"
        self._mean = torch.tensor((0.485, 0.456, 0.406), device=self.device)
        self._std = torch.tensor((0.229, 0.224, 0.225), device=self.device)
        self._loss = self._loss_of_batch
        if self.device == "cuda":
            self._loss = torch.compile(self._loss_of_batch, mode="max-autotune")

    def network(self, case: Case):
        """Returns PyTorch's network of a case."""
        from benchmarks import torch_peers

        return torch_peers.Classifier(case.backbone, fpn=case.fpn, size=case.size)

    def labels(self, case: Case):
        """Returns what the network learns."""
        return self._torch.arange(case.images) % 2

    def _loss_of_batch(self, pixels, labels):
        torch = self._torch
        mean, std = (x.view(1, 3, 1, 1) for x in (self._mean, self._std))
        with torch.autocast(self.device, torch.bfloat16, enabled=self._autocast):
            logits = self.model((pixels.float() / 255 - mean) / std)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    def forward_flops(self, size: int) -> float:
        """Returns the operations of a forward pass of one image.

        Args:
          size: Height and width of the image, in pixels.
        """
        from torch.utils.flop_counter import FlopCounterMode

        self.model.eval()
        counter = FlopCounterMode(display=False)
        image = self._torch.zeros(1, 3, size, size, device=self.device)
        with counter, self._torch.no_grad():
            self.model(image)
        self.model.train()
        return float(counter.get_total_flops())

    def run(self, steps: int) -> None:
        """Takes steps, and returns when the last one has ended."""
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            self._loss(self._images, self._labels).backward()
            self._optimizer.step()
        if self.device == "cuda":
            self._torch.cuda.synchronize()


CONTENDERS = {
    "ours": (Ours, "float32"),
    "ours_bf16": (Ours, "bfloat16"),
    "torch": (Theirs, "float32"),
    "torch_bf16": (Theirs, "bfloat16"),
}
"""Name → train step, and the type that it computes in."""


class Child:
    """A contender in a process of its own, which takes steps on request.

    Contenders in one process would share threads, heap and caches, which they do not
    in a training: in one process ours was up to a third slower than alone.

    Attributes:
      network: Number of `parameters`, and `flops` of a forward pass of one image.
    """

    def __init__(self, benchmark: str, name: str, case: Case, contender: str):
        command = [sys.executable, "-m", f"benchmarks.{benchmark}"]
        command += [f"--cases={name}", f"--contender={contender}"]
        command += [f"--images={case.images}", f"--size={case.size}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.network = self._answer()

    def seconds(self, steps: int) -> float:
        """Returns the seconds of steps in a row, after the steps of the warm-up."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def end(self) -> dict[str, float]:
        """Ends the process; returns its peak memory, and the FLOPs of our step."""
        self._process.stdin.close()
        answer = self._answer()
        self._process.wait()
        return answer

    def _answer(self) -> dict[str, float]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a contender ended with code {self._process.wait()}")
        return json.loads(line)


def contend(case: Case, make: type, dtype: str) -> None:
    """Is the process of a `Child`: reads numbers of steps, answers in JSON.

    Args:
      case: The network and the batch.
      make: Class of the contender.
      dtype: Name of the type that it computes in.
    """
    # Libraries print to standard output too, so they get standard error instead.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    step = make(case, dtype)
    # XLA does not count products with padding, which is a small part of maps this size.
    network = {"parameters": step.parameters, "flops": step.forward_flops(size=224)}
    print(json.dumps(network), file=answers)
    for line in sys.stdin:
        # The system takes back free pages during the turns of the others: a step after
        # a pause of seconds can take twice its usual time.
        step.run(WARM_UP)
        began = time.perf_counter()
        step.run(int(line))
        print(json.dumps({"seconds": time.perf_counter() - began}), file=answers)
    last = peaks_mib(step)
    if isinstance(step, Ours):
        last["gflop_per_step"] = step.stepping.flops() / 1e9
    print(json.dumps(last), file=answers)


def peaks_mib(step: Ours | Theirs) -> dict[str, float]:
    """Returns peak memory: of the device if it reports it, else of this process."""
    device = None
    if isinstance(step, Ours):
        import jax

        statistics = jax.local_devices()[0].memory_stats()
        device = statistics and statistics["peak_bytes_in_use"] / 2**20
    elif step.device == "cuda":
        device = step._torch.cuda.max_memory_allocated() / 2**20
    if device:
        return {"peak_mib": device, "life_peak_mib": device}
    life = memory.peak_mib()
    # Reset the peak, so that it does not include compilation.
    memory.forget_peak()
    step.run(3)
    return {"peak_mib": memory.peak_mib(), "life_peak_mib": life}


def check_same(name: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Ends the benchmark if the two are not the same network.

    Args:
      name: Name of the case.
      ours: `parameters` and `flops` of our network.
      theirs: Those of PyTorch's network.
    """
    if ours["parameters"] != theirs["parameters"]:
        counts = ours["parameters"], theirs["parameters"]
        sys.exit(f"{name}: {counts[0]} parameters, torch {counts[1]}")
    # XLA also counts elementwise operations, so the counts are not exactly equal.
    if not 0.9 < ours["flops"] / theirs["flops"] < 1.1:
        counts = ours["flops"], theirs["flops"]
        sys.exit(f"{name}: {counts[0]:.4g} FLOPs of one image, torch {counts[1]:.4g}")


def measure(name: str, case: Case, given, report: timing.Report) -> None:
    """Adds the rows of a case to the report.

    Args:
      name: Name of the case.
      case: The network and the batch.
      given: The parsed command line.
      report: Where the rows are added.
    """
    import jax

    on_gpu = jax.default_backend() == "gpu"
    names = ("ours", "torch", "torch_bf16")
    if on_gpu:
        names = ("ours_bf16", "torch_bf16")
    children = {who: Child(report.name, name, case, who) for who in names}
    check_same(name, *(children[who].network for who in names[:2]))
    taken = {who: [] for who in names}
    for _ in range(given.repeats):
        for who, child in children.items():
            taken[who].append(child.seconds(given.steps))
    peer = timing.spread(taken[names[1]])["median"]
    for who in names:
        times = timing.spread([seconds / given.steps for seconds in taken[who]])
        row = {
            "case": name,
            "images": case.images,
            "size": case.size,
            "who": who,
            "seconds": times["median"],
            "shortest": times["shortest"],
            "longest": times["longest"],
            "images_per_second": case.images / times["median"],
            "ratio_to_peer": peer / given.steps / times["median"],
            **children[who].end(),
        }
        if who == names[0] and given.peak_tflops:
            rate = row["gflop_per_step"] / times["median"] / 1e3
            row["share_of_peak"] = rate / given.peak_tflops
        report.add(**row)


def run(
    name: str,
    description: str,
    all_cases: Mapping[str, Any],
    contenders: Mapping[str, tuple[type, str]],
) -> None:
    """Prints the table of a benchmark of train steps.

    Args:
      name: Name of its module, and of its results.
      description: One sentence for `--help`.
      all_cases: Name → case.
      contenders: Name → class, and the type that it computes in.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--cases", default=",".join(all_cases), help="separated by commas"
    )
    parser.add_argument("--repeats", type=int, default=7, help="rounds, in turns")
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--images", type=int, help="images per step of every case")
    parser.add_argument("--size", type=int, help="side of the images of every case, px")
    parser.add_argument(
        "--peak_tflops", type=float, help="peak of the device, adds share_of_peak"
    )
    parser.add_argument("--contender", choices=contenders, help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.cases.split(",")) - set(all_cases)
    if unknown:
        parser.error(f"unknown cases {sorted(unknown)}; choose from {list(all_cases)}")
    stepping.start()
    import jax

    changes = GPU_BATCH if jax.default_backend() == "gpu" else {}
    chosen = {"images": given.images, "size": given.size}
    changes = changes | {key: value for key, value in chosen.items() if value}
    chosen_cases = given.cases.split(",")
    cases = {key: all_cases[key]._replace(**changes) for key in chosen_cases}
    warnings.simplefilter("ignore")
    if given.contender:
        contend(*cases.values(), *contenders[given.contender])
        return
    report = timing.Report(name)
    for key, case in cases.items():
        measure(key, case, given, report)
    report.show()


def main() -> None:
    """Prints the table."""
    run("train_step", __doc__.splitlines()[0], CASES, CONTENDERS)


if __name__ == "__main__":
    main()
