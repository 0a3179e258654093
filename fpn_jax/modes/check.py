"""`--mode=check`: decodes every record, and reports bad files and duplicates."""

from fpn_jax.data import check
from fpn_jax.data.records import SPLITS, AbsentSplit
from fpn_jax.experiment import read_options, source
from fpn_jax.modes import Options
from fpn_jax.resolve import resolve

SUMMARY = "Reports every file that cannot be decoded, and duplicates between splits."
TAKES = frozenset({"config"})
NEEDS = frozenset({"config"})


def run(options: Options) -> int:
    """Decodes every record of every split, and reports what is wrong.

    Returns:
      1 if a record is bad, or the same pixels are in two splits or classes; else 0.
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
