"""How often a verdict names the fault of a training that went wrong: python -m benchmarks.verdict_score PART

Faults of 13 kinds are injected into real trainings of small networks on real images, beside healthy ones. The rules of
models/verdict/causes were written while looking at the part "development" only; the part "held-out" has other networks
and another dataset; "labels" has other seeds, for one rule. What each verdict was given is kept in --folder; what is
there is not trained again, and several processes may fill one folder. Prints recall and precision of each fault once
all trainings of the part are there.

A training takes 4 to 20 s on one core: development 6 minutes, held-out 12, labels 2.
"""

import argparse
import sys
from pathlib import Path

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

from benchmarks.verdict_score.faults import PARTS, Case, cases
from benchmarks.verdict_score.scores import Judged, fault_table, mistakes, part_table, summary
from benchmarks.verdict_score.trainings import collect, kept
from models.findings import CAUSES
from models.verdict import judge


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def judged(folder: Path, wanted: list[Case]) -> list[Judged]:
    """The trainings in the folder, and what today's rules say of each."""
    found = []
    for case in wanted:
        if (given := kept(folder, case)) is not None:
            verdict = judge(given.pop("history"), **given)
            found.append(Judged(case, frozenset(one.code for one in verdict.findings if one.code in CAUSES)))
    return found


def main() -> int:
    """Train what is missing, then score."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict_score", description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, required=True, help="where what verdicts were given is kept")
    parser.add_argument("--most", type=int, default=1_000_000, help="train so many and stop (exit status 3)")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="train every n-th only")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = list(cases(options.part))
    first, step = options.share
    if not collect(options.folder, wanted[first::step], options.most, say):
        return 3
    found = judged(options.folder, wanted)
    if len(found) < len(wanted):
        return 3
    for line in fault_table(found):
        say(line)
    say("")
    datasets = dict.fromkeys(case.dataset for case in wanted)
    networks = dict.fromkeys(case.network for case in wanted)
    groups = {name: [one for one in found if one.case.dataset == name] for name in datasets}
    groups |= {name: [one for one in found if one.case.network == name] for name in networks}
    for line in part_table({options.part: found, **groups}):
        say(line)
    say("")
    for line in mistakes(found):
        say(line)
    say(summary(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
