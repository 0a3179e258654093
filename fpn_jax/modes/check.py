"""`--mode=check`: reads every record, and lists bad files and duplicates."""

import functools

import jax
import numpy as np

from fpn_jax.config import Config
from fpn_jax.data import check
from fpn_jax.data.records import SPLITS, AbsentSplit
from fpn_jax.experiment import Experiment
from fpn_jax.modes import Options
from fpn_jax.parts import read_options, source
from fpn_jax.resolve import REGISTRIES, resolve
from fpn_jax.tasks.base import Inspection

SUMMARY = "Lists files and annotations that cannot be used, and duplicates."
TAKES = frozenset({"config"})
NEEDS = frozenset({"config"})


def run(options: Options) -> int:
    """Decodes every record of every split, and prints bad files and duplicates.

    Args:
      options: The values of the flags.

    Returns:
      The exit code: 1 if a record is bad, if an image occurs in two splits or classes,
      or if the task finds the annotations wrong; otherwise 0.

    Raises:
      InputError: The config or the data cannot be used.
    """
    config = resolve(options.given)
    findings, threads, passed = {}, read_options(config).num_threads, True
    for split in SPLITS:
        try:
            records = source(config, split)
        except AbsentSplit as error:
            print(f"{split}: {error}")
            continue
        findings[split] = check.check(records, threads)
        for line in findings[split].text().splitlines():
            print(f"{split}: {line}")
        inspection = _inspected(config, split, threads)
        for line in inspection.lines:
            print(f"{split}: {line}")
        passed = passed and inspection.passed
    duplicates = check.find_duplicates(findings)
    for duplicate in duplicates:
        print(duplicate.text())
    bad = not passed or not all(found.passed for found in findings.values())
    # Near-duplicates may be burst photographs, so they do not fail the check.
    return 1 if bad or any(one.bits is None for one in duplicates) else 0


def _inspected(config: Config, split: str, threads: int) -> Inspection:
    """Returns what the annotations of a split mean to the task, if it says so."""
    if not getattr(REGISTRIES["task"].constructor(config.task.name), "inspects", False):
        return Inspection((), True)
    # A header tells the size of a JPEG, so the images are not decoded again.
    records = source(config, split, encoded=True)
    experiment = Experiment(config, records.info)
    if not experiment.task.needs <= set(records.info.fields):
        return Inspection((), True)
    rows = check.boxes_of(
        records, experiment.eval_transform, experiment.task.max_boxes, threads
    )
    image = jax.ShapeDtypeStruct((1, *experiment.image_size, 3), np.uint8)
    init = functools.partial(experiment.model.init_with_output, train=False)
    predictions, _ = jax.eval_shape(init, jax.random.key(0), image)
    return experiment.task.inspect(rows, predictions)
