"""Faults of the data: bad files, odd names, duplicates, killed workers, hung reads."""

import contextlib
import functools
import io
import os
import pathlib
import shutil
import signal
import time

import cv2
import numpy as np
from PIL import Image

from benchmarks.faults import runs
from benchmarks.faults.runs import Bench, Outcome
from fpn_jax.data import check, order, pipeline
from fpn_jax.data.images import decode, reading
from fpn_jax.data.records import Record
from fpn_jax.data.sources.folder import FolderSource
from fpn_jax.errors import InputError

NAMES = (
    "a space.jpg",
    'it\'s "quoted".jpg',
    "two\nlines.jpg",
    "<script>alert(1)</script>.jpg".replace("/", "\u2215"),
    "--flag.jpg",
    "%s{}.jpg",
    "日本 🐈.jpg",
    os.fsdecode(b"not utf-8 \xff\xfe.jpg"),
    "right to left \u202e.jpg",
    "n" * 240 + ".jpg",
)
"""File names that a file system allows and that programs often handle wrongly."""


def photograph(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """Returns a random image that compresses like a photograph, uint8 `[S, S, 3]`."""
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def write_folder(root: pathlib.Path, rng: np.random.Generator, each: int = 8) -> None:
    """Writes Train and Validate × Cat and Dog, with `each` images in each folder."""
    for split in ("Train", "Validate"):
        for name in ("Cat", "Dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                path = root / split / name / f"{number}.jpg"
                Image.fromarray(photograph(rng)).save(path, quality=90)


def corrupted(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Returns the kind of a random corruption, and the corrupted bytes of a file."""
    kind = ("cut", "zeros", "noise", "inserted", "removed")[int(rng.integers(5))]
    length = len(content)
    start = int(rng.integers(length))
    count = int(rng.integers(1, 1 + min(512, length)))
    noise = rng.bytes(count)
    return kind, {
        "cut": content[:start],
        "zeros": content[:start] + bytes(count) + content[start + count :],
        "noise": content[:start] + noise + content[start + count :],
        "inserted": content[:start] + noise + content[start:],
        "removed": content[:start] + content[start + count :],
    }[kind]


@functools.cache
def originals(photographs: pathlib.Path | None) -> list[bytes]:
    """Returns intact files to corrupt, half of them JPEGs and half PNGs.

    Args:
      photographs: A folder of JPEGs; None generates images.
    """
    if photographs is not None:
        jpegs = [p.read_bytes() for p in sorted(photographs.rglob("*.jpg"))[:40]]
    else:
        rng = np.random.default_rng(0)
        jpegs = [_encoded(photograph(rng), "jpeg") for _ in range(10)]
    pngs = [_encoded(decode.decode(jpeg), "png") for jpeg in jpegs]
    return jpegs + pngs


def _encoded(image: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def decodes_with_pillow(content: bytes) -> bool:
    """Returns whether Pillow decodes a file."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception:
        return False
    return True


def corruption(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Corrupts one file: it must be refused if Pillow refuses it, or if it was cut.

    In other cases the corrupted file may be valid, so that either result passes; the
    values count them.

    Args:
      bench: May have photographs.
      scratch: Not used.
      rng: Chooses the file and the corruption.
    """
    files = originals(bench.photographs)
    content = files[int(rng.integers(len(files)))]
    kind, damaged = corrupted(content, rng)
    try:
        decode.decode(damaged)
        noticed = False
    except ValueError:
        noticed = True
    # A cut after the end marker of a JPEG, or the last chunk of a PNG, removes nothing.
    marker = b"\xff\xd9" if content.startswith(b"\xff\xd8") else b"IEND"
    must = damaged != content and (
        not decodes_with_pillow(damaged)
        or (kind == "cut" and len(damaged) <= content.rfind(marker))
    )
    return Outcome(
        noticed or not must,
        f"{kind}: {'noticed' if noticed else 'not noticed'}",
        {"must": float(must), "noticed": float(noticed)},
    )


def odd_names(bench: Bench, scratch: pathlib.Path, rng: np.random.Generator) -> Outcome:
    """Gives intact and damaged files odd names: `check` must report the damaged ones.

    It must also change no file.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Draws the images.
    """
    root = scratch / "photos"
    write_folder(root, rng)
    for number, name in enumerate(NAMES):
        path = root / "Train" / "Cat" / name
        Image.fromarray(photograph(rng)).save(path, format="jpeg")
        if number % 2:
            path.write_bytes(path.read_bytes()[:-50])
    (root / "Train" / "Cat" / "loop.jpg").symlink_to("loop.jpg")
    (root / "Train" / "Cat" / "deep").symlink_to(root / "Train" / "Cat")
    (root / "Train" / "Cat" / "zero.jpg").symlink_to("/dev/zero")
    (root / "Train" / "Dog" / "text.jpg").write_text("no image")
    (root / "Train" / "Dog" / "nothing.jpg").write_bytes(b"")
    before = _contents(root)
    report = check.check(FolderSource(root, "train"), 2)
    bad = len(NAMES) // 2 + 4
    text = report.text()
    # The text must be valid UTF-8; encoding it raises otherwise.
    text.encode()
    return Outcome(
        len(report.bad) == bad
        and len(text.splitlines()) == bad + 1
        and _contents(root) == before,
        f"{len(report.bad)} of {bad} damaged files reported",
    )


def _contents(root: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def planted_copies(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Plants copies in other splits and classes: `check` must report every copy.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Draws the images.
    """
    root = scratch / "photos"
    write_folder(root, rng)
    copied, scaled = root / "Train" / "Cat" / "0.jpg", root / "Train" / "Dog" / "1.jpg"
    shutil.copy(copied, root / "Validate" / "Cat" / "copy.jpg")
    shutil.copy(root / "Train" / "Cat" / "2.jpg", root / "Train" / "Dog" / "copy.jpg")
    with Image.open(scaled) as image:
        half = image.resize((32, 32), Image.Resampling.BOX)
        half.save(root / "Validate" / "Dog" / "half.jpg", quality=60)
    findings = {
        split: check.check(FolderSource(root, split), 2)
        for split in ("train", "validate")
    }
    lines = [found.text() for found in check.find_duplicates(findings)]
    wanted = (
        ("duplicate in train and validate", "0.jpg", "Validate/Cat/copy.jpg"),
        ("duplicate in Cat and Dog", "2.jpg", "Train/Dog/copy.jpg"),
        ("near-duplicate", "1.jpg", "Validate/Dog/half.jpg"),
    )
    found = sum(
        any(all(word in line for word in words) for line in lines) for words in wanted
    )
    return Outcome(
        found == len(wanted) == len(lines),
        f"{found} of {len(wanted)} planted copies reported, {len(lines)} lines",
        {"found": found, "planted": len(wanted)},
    )


def identity(record: Record, *_) -> Record:
    """Returns the record with its image decoded, and no augmentation."""
    return record | {"image": decode.pixels(record["image"])}


def stalled_read(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    policy: str,
    num_workers: int,
) -> Outcome:
    """Replaces a file by a pipe that nobody writes to, so that its read never returns.

    Args:
      bench: Not used.
      scratch: An empty folder.
      rng: Draws the images and the order.
      policy: `stop` or `skip`, the value of `data.on_bad_file`.
      num_workers: Number of data workers.
    """

    def stall(path: pathlib.Path) -> None:
        path.unlink()
        os.mkfifo(path)

    return _without_a_file(scratch, rng, policy, num_workers, stall)


def deleted_file(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    policy: str,
    num_workers: int,
) -> Outcome:
    """Deletes a file after the source has listed it; arguments as `stalled_read`."""
    return _without_a_file(scratch, rng, policy, num_workers, pathlib.Path.unlink)


def _without_a_file(scratch, rng, policy, num_workers, spoil) -> Outcome:
    """Starts an epoch, damages its last file with `spoil`, and reads the epoch."""
    root, batch_size, seed = scratch / "photos", 4, int(rng.integers(1000))
    write_folder(root, rng, each=40)
    source = FolderSource(root, "train")
    name = source.id(int(order.epoch_order(len(source), seed, 0)[-1]))
    options = pipeline.Options(
        on_bad_file=policy, num_threads=2, num_workers=num_workers
    )
    batches = pipeline.train_batches(
        source, identity, global_batch_size=batch_size, seed=seed, options=options
    )
    # Now workers have started, and the last batch is not read ahead yet.
    next(batches)
    spoil(pathlib.Path(name))
    began, printed, error = time.monotonic(), io.StringIO(), ""
    try:
        with contextlib.redirect_stderr(printed):
            for _ in range(len(source) // batch_size - 1):
                next(batches)
    except InputError as raised:
        error = str(raised)
    finally:
        seconds = time.monotonic() - began
        batches.close()
    if policy == "stop":
        passed = name in error
    else:
        skipped = [id for id, _ in batches.skipped.values()]
        passed = not error and skipped == [name] and name in printed.getvalue()
    return Outcome(
        passed and seconds < reading.READ_SECONDS + 3,
        f"{policy}, {num_workers} workers: {error or 'epoch read'}, {seconds:.1f} s",
        {"seconds": seconds},
    )


def worker_killed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Kills one data worker: the run must report it within 10 s, and save.

    After it has resumed, no byte may differ.

    Args:
      bench: Has the run without a fault.
      scratch: An empty folder.
      rng: Chooses the worker.
    """
    workers = "--config.data.num_workers=2"
    run = runs.start(scratch / "run", bench.steps, workers)
    run.until(lambda: run.rows() > runs.EVERY)
    os.kill(int(rng.choice(_workers(run))), signal.SIGKILL)
    began = time.monotonic()
    code = run.wait(60)
    seconds, output = time.monotonic() - began, run.output()
    runs.finish(scratch / "run", bench.steps, workers)
    count = bench.differing_bytes(scratch / "run")
    passed = (
        code == 1
        and "a data worker is gone" in output
        and "Traceback" not in output
        and seconds < 10
        and count == 0
    )
    return Outcome(
        passed,
        f"exit code {code} after {seconds:.1f} s, {count} bytes differ"
        + ("" if passed else f": {output}"),
        {"seconds": seconds, "differing_bytes": count},
    )


def _workers(run: runs.Run) -> list[int]:
    """Returns the data workers of a run."""
    commands = runs.commands(run.process.pid)
    return [pid for pid, command in commands.items() if b"spawn_main" in command]
