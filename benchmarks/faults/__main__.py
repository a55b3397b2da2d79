"""`python -m benchmarks.faults`: inject every fault for real, and print the outcomes.

--only 1,5,26-40   these cases
--list             what there is, and do nothing
--json             the outcomes as JSON on standard output
--write            put them into docs/reliability.md
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults import infrastructure_cases, input_cases, network_cases, queue_cases  # noqa: F401 (they register)
from benchmarks.faults.harness import CASES, Bench, Case, Skipped, progress
from benchmarks.faults.oracle import inconsistencies, leftovers
from benchmarks.faults.report import Outcome, print_table, write_table
from benchmarks.rows import numbers, what_went_wrong
from models.data.dataset import load_dataset
from models.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def main() -> int:
    """Run the requested cases. Returns 1 if one did not go as promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description="Do faults to a real lab.")
    parser.add_argument("--only", help="numbers and ranges: 1,5,26-40")
    parser.add_argument("--list", action="store_true", help="list the cases and do nothing")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--write", action="store_true", help=f"put the outcomes into {PAGE.name}")
    arguments = parser.parse_args()
    cases = [CASES[number] for number in (numbers(arguments.only, CASES) if arguments.only else sorted(CASES))]
    if arguments.list:
        for each in cases:
            print(f"{each.number:2}  {each.title}: {each.promise}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is stopped and its folder removed
    load_dataset("cifar10", Settings())
    outcomes = list(run_all(cases))
    if arguments.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        print_table(outcomes)
    if arguments.write:
        write_table(PAGE, outcomes)
    return 1 if any(outcome.as_promised == "no" for outcome in outcomes) else 0


def run_all(cases: list[Case]) -> Iterator[Outcome]:
    """Run cases one after the other; those with the same settings in one lab, unless the one before broke."""
    bench: Bench | None = None
    last: Case | None = None
    try:
        for each in cases:
            fresh = bench is None or last is None or each.own_lab or last.own_lab or each.settings != last.settings
            if fresh and bench is not None:
                _close(bench)
                bench = None
            progress(f"{each.number:2}  {each.title}")
            began = time.monotonic()
            outcome = None
            if bench is None:
                bench = Bench(each.settings)
            try:
                if not each.own_lab and not bench.running:
                    bench.start()
                began = time.monotonic()
                outcome = run_one(bench, each, began)
            except Exception as error:  # noqa: BLE001 (a lab that does not start is the case's outcome)
                outcome = _outcome(each, began, f"the lab did not start: {error}", "no")
            progress(f"    {outcome.happened} [{outcome.seconds:.1f} s, as promised: {outcome.as_promised}]")
            last = each
            if outcome.as_promised == "no":
                _close(bench)
                bench = None
            yield outcome
    finally:
        if bench is not None:
            _close(bench)


def run_one(bench: Bench, case: Case, began: float) -> Outcome:
    """Run one case and look at the lab afterwards."""
    if bench.running:
        bench.client.seen.clear()
        bench.healthz.reset()
    try:
        happened = case.run(bench)
    except Skipped as reason:
        return _outcome(case, began, f"cannot be run on this machine: {reason}", "skipped")
    except Exception as error:  # noqa: BLE001 (whatever a case ends with is its outcome)
        return _outcome(case, began, what_went_wrong(error), "no")
    if not bench.running:
        return _outcome(case, began, happened, "yes")
    bench.end_extra_workers()
    if wrong := inconsistencies(bench, case.allowed):
        return _outcome(case, began, f"{happened}; but {'; '.join(wrong[:4])}", "no")
    return _outcome(case, began, happened, "yes", round(bench.healthz.slowest_seconds, 3))


def _outcome(
    case: Case, began: float, happened: str, as_promised: str, healthz_seconds: float | None = None
) -> Outcome:
    seconds = round(time.monotonic() - began, 1)
    return Outcome(case.number, case.title, case.done, case.promise, happened, seconds, as_promised, healthz_seconds)


def _close(bench: Bench) -> None:
    """Stop a lab, and report leftovers, which cannot be attributed to one case."""
    if bench.running:
        bench.cancel_all()
        bench.stop()
        for text in leftovers(bench):
            progress(f"    not as promised, after the lab was stopped: {text}")
    bench.close()


if __name__ == "__main__":
    sys.exit(main())
