"""Faults of the data: damaged files, odd names, copies, workers and disks that hang."""

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
"""Names that a file system takes and that programs stumble over."""


def photograph(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """Returns an image that compresses like a photograph, uint8 `[S, S, 3]`."""
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def write_folder(root: pathlib.Path, rng: np.random.Generator, each: int = 8) -> None:
    """Writes Train and Validate × Cat and Dog, with so many photographs in each."""
    for split in ("Train", "Validate"):
        for name in ("Cat", "Dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                path = root / split / name / f"{number}.jpg"
                Image.fromarray(photograph(rng)).save(path, quality=90)


def corrupted(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Returns what was done to a file's bytes, and the bytes."""
    kind = ("cut", "zeros", "noise", "inserted", "removed")[int(rng.integers(5))]
    length = len(content)
    place = int(rng.integers(length))
    some = int(rng.integers(1, 1 + min(512, length)))
    noise = rng.bytes(some)
    return kind, {
        "cut": content[:place],
        "zeros": content[:place] + bytes(some) + content[place + some :],
        "noise": content[:place] + noise + content[place + some :],
        "inserted": content[:place] + noise + content[place:],
        "removed": content[:place] + content[place + some :],
    }[kind]


@functools.cache
def originals(photographs: pathlib.Path | None) -> list[bytes]:
    """Returns good files to corrupt, half of them JPEGs and half PNGs.

    Args:
      photographs: A folder of JPEGs; None makes some.
    """
    if photographs is not None:
        jpegs = [p.read_bytes() for p in sorted(photographs.rglob("*.jpg"))[:40]]
    else:
        rng = np.random.default_rng(0)
        jpegs = [_encoded(photograph(rng), "jpeg") for _ in range(10)]
    pngs = [_encoded(decode.decode(one), "png") for one in jpegs]
    return jpegs + pngs


def _encoded(image: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def decodes_with_pillow(content: bytes) -> bool:
    """Returns whether Pillow alone, strict as it comes, decodes a file."""
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
    """Corrupts one file; what Pillow refuses or what was cut must be refused.

    Where neither is so, the damage may have left a valid file: counted, not judged.
    """
    files = originals(bench.photographs)
    content = files[int(rng.integers(len(files)))]
    kind, damaged = corrupted(content, rng)
    try:
        decode.decode(damaged)
        noticed = False
    except ValueError:
        noticed = True
    # Behind the end marker of a JPEG, or the last chunk of a PNG, nothing is missing.
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
    """Gives whole and broken files odd names; `check` must name the broken ones."""
    root = scratch / "photos"
    write_folder(root, rng)
    before = {}
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
    # What a terminal, a file of UTF-8 and a line of text must hold.
    text.encode()
    held = (
        len(report.bad) == bad
        and len(text.splitlines()) == bad + 1
        and _contents(root) == before
    )
    return Outcome(held, f"{len(report.bad)} of {bad} broken files named")


def _contents(root: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def planted_copies(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Plants copies across splits and classes; `check` must name every one."""
    root = scratch / "photos"
    write_folder(root, rng)
    whole, scaled = root / "Train" / "Cat" / "0.jpg", root / "Train" / "Dog" / "1.jpg"
    shutil.copy(whole, root / "Validate" / "Cat" / "copy.jpg")
    shutil.copy(root / "Train" / "Cat" / "2.jpg", root / "Train" / "Dog" / "copy.jpg")
    with Image.open(scaled) as image:
        half = image.resize((32, 32), Image.Resampling.BOX)
        half.save(root / "Validate" / "Dog" / "half.jpg", quality=60)
    reports = {
        split: check.check(FolderSource(root, split), 2)
        for split in ("train", "validate")
    }
    said = [one.text() for one in check.find_duplicates(reports)]
    wanted = (
        ("duplicate in train and validate", "0.jpg", "Validate/Cat/copy.jpg"),
        ("duplicate in Cat and Dog", "2.jpg", "Train/Dog/copy.jpg"),
        ("near-duplicate", "1.jpg", "Validate/Dog/half.jpg"),
    )
    found = sum(any(all(w in line for w in words) for line in said) for words in wanted)
    return Outcome(
        found == len(wanted) == len(said),
        f"{found} of {len(wanted)} planted copies named, {len(said)} lines",
        {"found": found, "planted": len(wanted)},
    )


def identity(record: Record, *_) -> Record:
    """Returns a photograph of 64 px as it is."""
    return record | {"image": decode.pixels(record["image"])}


def stalled_read(
    bench: Bench,
    scratch: pathlib.Path,
    rng: np.random.Generator,
    policy: str,
    num_workers: int,
) -> Outcome:
    """Replaces a file by a pipe that nobody writes to: a read that never returns."""

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
    """Deletes a file after the source listed it."""
    return _without_a_file(scratch, rng, policy, num_workers, pathlib.Path.unlink)


def _without_a_file(scratch, rng, policy, num_workers, spoil) -> Outcome:
    """Spoils the last file of an epoch that has begun, and reads the epoch."""
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
    # Workers have started; the last batch is not being read ahead yet.
    next(batches)
    spoil(pathlib.Path(name))
    began, said = time.monotonic(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            for _ in range(len(source) // batch_size - 1):
                next(batches)
        ended = "read on"
    except InputError as error:
        ended = str(error)
    finally:
        seconds = time.monotonic() - began
        batches.close()
    if policy == "stop":
        held = name in ended
    else:
        skipped = [id for id, _ in batches.skipped.values()]
        held = ended == "read on" and skipped == [name] and name in said.getvalue()
    return Outcome(
        held and seconds < reading.READ_SECONDS + 3,
        f"{policy}, {num_workers} workers: {ended}, {seconds:.1f} s",
        {"seconds": seconds},
    )


def worker_killed(
    bench: Bench, scratch: pathlib.Path, rng: np.random.Generator
) -> Outcome:
    """Kills one data worker of a run: told within 10 s, saved, and resumed exactly."""
    workers = "--config.data.num_workers=2"
    run = runs.start(scratch / "run", bench.steps, workers)
    run.until(lambda: run.rows() > runs.EVERY)
    os.kill(int(rng.choice(_workers(run))), signal.SIGKILL)
    began = time.monotonic()
    code = run.ended(60)
    seconds, said = time.monotonic() - began, run.said()
    runs.finish(scratch / "run", bench.steps, workers)
    count = bench.differing_bytes(scratch / "run")
    held = (
        code == 1
        and "a data worker is gone" in said
        and "Traceback" not in said
        and seconds < 10
        and count == 0
    )
    return Outcome(
        held,
        f"exit code {code} after {seconds:.1f} s, {count} bytes differ"
        + ("" if held else f": {said}"),
        {"seconds": seconds, "differing_bytes": count},
    )


def _workers(run: runs.Run) -> list[int]:
    """Returns the data workers of a run."""
    words = {
        pid: pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in runs.alive(run.process.pid)
    }
    return [pid for pid, given in words.items() if b"spawn_main" in given]
