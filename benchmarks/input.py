"""Photographs on disk → batches of random 224 px crops in device memory, in turns.

    python -m benchmarks.input --root=DIR [--size=224] [--repeats=5]

`DIR` has Train × Cat and Dog. Ours is the input pipeline of a training, which also
detects truncated files. The peers are PyTorch's DataLoader with PIL's decoder and
torchvision's transforms, with several numbers of workers, and, where TensorFlow is
installed (extra `tf`), tf.data with `decode_and_crop_jpeg`. All of them return uint8
crops of 8 to 100 per cent of the area, half of them mirrored.
"""

import argparse
import importlib.util
import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import stepping, timing

BATCH = 64
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def ours(root: str, size: int, threads: int, quick: bool) -> Iterator[np.ndarray]:
    """Yields our batches, in device memory, without end.

    Args:
      root: Folder with Train × Cat and Dog.
      size: Height and width of a crop, in pixels.
      threads: Number of threads that read and decode.
      quick: Whether JPEGs are decoded quickly and at a reduced size, as in training,
        or exactly.
    """
    import jax

    from fpn_jax.data import augmentation, pipeline
    from fpn_jax.data.sources.folder import FolderSource

    transform = augmentation.build_train(
        size,
        crop_scale=SCALE,
        crop_ratio=RATIO,
        flip=0.5,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        randaugment_layers=0,
        randaugment_magnitude=9.0,
        erasing=0.0,
    )
    batches = pipeline.train_batches(
        FolderSource(root, "train", encoded=quick),
        transform,
        global_batch_size=BATCH,
        seed=0,
        options=pipeline.Options(num_threads=threads),
    )
    for batch in batches:
        yield jax.device_put(batch["image"])


def with_torch(root: str, size: int, workers: int) -> Iterator:
    """Yields PyTorch's batches without end."""
    import torch
    from PIL import Image

    from benchmarks import torch_peers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    transforms = torch_peers.torchvision.transforms
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, SCALE, RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )

    class Folder(torch.utils.data.Dataset):
        """The images of Train."""

        def __init__(self):
            self.paths = sorted(pathlib.Path(root, "Train").glob("*/*.jpg"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, index):
            with Image.open(self.paths[index]) as image:
                return transform(image.convert("RGB"))

    loader = torch.utils.data.DataLoader(
        Folder(),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )
    while True:
        for batch in loader:
            yield batch.to(device, non_blocking=True)


def with_tf_data(root: str, size: int) -> Iterator:
    """Yields tf.data's batches without end."""
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    paths = [str(path) for path in sorted(pathlib.Path(root, "Train").glob("*/*.jpg"))]

    def load(path):
        data = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros((1, 0, 4)),
            area_range=SCALE,
            aspect_ratio_range=RATIO,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(
            data, box, channels=3, dct_method="INTEGER_FAST"
        )
        image = tf.cast(tf.image.resize(image, (size, size)), tf.uint8)
        return tf.image.random_flip_left_right(image)

    batches = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths))
        .repeat()
        .map(load, tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    for batch in batches.as_numpy_iterator():
        yield jax.device_put(batch)


def reader(batches: Iterator, count: int) -> Callable[[], None]:
    """Returns a function that takes `count` batches."""

    def read():
        for batch in itertools.islice(batches, count):
            if hasattr(batch, "block_until_ready"):
                batch.block_until_ready()

    return read


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder with Train × Cat and Dog")
    parser.add_argument("--size", type=int, default=224, help="side of a crop, px")
    parser.add_argument("--batches", type=int, default=16, help="batches of a round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in turns")
    given = parser.parse_args()
    stepping.start()
    warnings.simplefilter("ignore")
    cores = len(os.sched_getaffinity(0))
    makers = {
        f"ours, {n} threads": lambda n=n: ours(given.root, given.size, n, True)
        for n in (cores, 2 * cores)
    }
    makers["ours, exact"] = lambda: ours(given.root, given.size, cores, False)
    for n in sorted({1, cores, 2 * cores}):
        makers[f"torch and PIL, {n} workers"] = lambda n=n: with_torch(
            given.root, given.size, n
        )
    if importlib.util.find_spec("tensorflow"):
        makers["tf.data"] = lambda: with_tf_data(given.root, given.size)
    # Every turn starts its pipeline anew: one that is open reads ahead in other turns.
    taken: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(given.repeats):
        for name, make in makers.items():
            batches = make()
            read = reader(batches, given.batches)
            # The warm-up starts the workers and fills the queues.
            taken[name] += timing.in_turns({name: read}, 1, warm_up=1)[name]
            batches.close()
    images = given.batches * BATCH
    medians = {name: timing.spread(times)["median"] for name, times in taken.items()}
    best = min(t for name, t in medians.items() if name.startswith("torch"))
    report = timing.Report("input")
    for name, times in taken.items():
        spread = timing.spread(times)
        report.add(
            who=name,
            size=given.size,
            cores=cores,
            images_per_second=images / spread["median"],
            slowest=images / spread["longest"],
            fastest=images / spread["shortest"],
            ratio_to_torch=best / spread["median"],
        )
    report.show()


if __name__ == "__main__":
    main()
