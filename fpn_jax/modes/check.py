"""`--mode=check`: reads every record, and names bad files and duplicates."""

from fpn_jax.data import check
from fpn_jax.data.records import SPLITS, AbsentSplit
from fpn_jax.modes import Options
from fpn_jax.parts import read_options, source
from fpn_jax.resolve import resolve

SUMMARY = "Names files and annotations that cannot be used, and duplicates."
TAKES = frozenset({"config"})
NEEDS = frozenset({"config"})


def run(options: Options) -> int:
    """Decodes every record of every split, and prints bad files and duplicates.

    Args:
      options: The values of the flags.

    Returns:
      The exit code: 1 if a record is bad, or if an image occurs in two splits or
      classes; otherwise 0.

    Raises:
      InputError: The config or the data cannot be used.
    """
    config = resolve(options.given)
    findings, threads = {}, read_options(config).num_threads
    for split in SPLITS:
        try:
            records = source(config, split)
        except AbsentSplit as error:
            print(f"{split}: {error}")
            continue
        findings[split] = check.check(records, threads)
        for line in findings[split].text().splitlines():
            print(f"{split}: {line}")
    duplicates = check.find_duplicates(findings)
    for duplicate in duplicates:
        print(duplicate.text())
    bad = not all(found.passed for found in findings.values())
    # Near-duplicates may be burst photographs, so they do not fail the check.
    return 1 if bad or any(one.bits is None for one in duplicates) else 0
