"""`--mode=check`: finds files that cannot be decoded, and duplicates."""

from fpn_jax.data import check
from fpn_jax.data.records import SPLITS, AbsentSplit
from fpn_jax.experiment import read_options, source
from fpn_jax.modes import Options
from fpn_jax.resolve import resolve

SUMMARY = "Finds files that cannot be decoded, and duplicates between splits."
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
    reports, threads = {}, read_options(config).num_threads
    for split in SPLITS:
        try:
            records = source(config, split)
        except AbsentSplit as error:
            print(f"{split}: {error}")
            continue
        reports[split] = check.check(records, threads)
        for line in reports[split].text().splitlines():
            print(f"{split}: {line}")
    repeated = check.twice(reports)
    for one in repeated:
        print(one.text())
    bad = any(report.bad for report in reports.values())
    # Near-duplicates may be burst photographs, so they do not fail the check.
    return 1 if bad or any(one.bits is None for one in repeated) else 0
