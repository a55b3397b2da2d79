"""`python -m benchmarks.attack`: attack a lab that requires keys, and print the outcome and other clients' latency.

--only 1,5,7-9     these attacks
--list             what there is, and do nothing
--json FILE        write the outcomes as JSON too
--before FILE      outcomes of an earlier version, to stand beside these in the table (before.json: those of 0056608)
--write            put the table into docs/reliability.md
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.attack import insider_attacks, perimeter_attacks  # noqa: F401 (they register)
from benchmarks.attack.harness import ATTACKS, SLOWEST_P99_SECONDS, Attack, Seen, Target
from benchmarks.faults.harness import Bench, progress
from benchmarks.faults.report import machine
from benchmarks.rows import KEPT, make_row, numbers, put_between, rows_between, what_went_wrong
from models.data.dataset import load_dataset
from models.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEFORE = Path(__file__).with_name("before.json")
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"
HEADER = (
    "| # | attack | what was done | before | now | others meanwhile, before | now | held |\n"
    "|---|---|---|---|---|---|---|---|"
)
PLENTY = {"requests_per_minute": 100_000}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack, done."""

    number: int
    title: str
    done: str
    happened: str
    others: str
    seconds: float
    held: bool


def main() -> int:
    """Run the requested attacks. Returns 1 if a guarantee did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", help="numbers and ranges: 1,5,7-9")
    parser.add_argument("--list", action="store_true", help="list the attacks and do nothing")
    parser.add_argument("--json", type=Path, help="write the outcomes as JSON too")
    parser.add_argument("--before", type=Path, default=BEFORE, help=f"outcomes of an earlier version ({BEFORE.name})")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    chosen = [ATTACKS[number] for number in (numbers(options.only, ATTACKS) if options.only else sorted(ATTACKS))]
    if options.list:
        for each in chosen:
            print(f"{each.number:2}  {each.title}: {each.promise}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is stopped and its folder removed
    os.umask(0)  # attack 13: nothing is private because of the umask
    load_dataset("cifar10", Settings())
    outcomes = []
    for outcome in run_all(chosen):
        outcomes.append(outcome)
        if options.json:
            options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    for one in outcomes:
        print(f"{one.number:2}  {'held  ' if one.held else 'BROKEN'}  {one.title}: {one.happened} [{one.others}]")
    print(f"{sum(one.held for one in outcomes)} of {len(outcomes)} held; {sum(one.seconds for one in outcomes):.0f} s")
    if options.write:
        before = json.loads(options.before.read_text()) if options.before.exists() else []
        write_table(PAGE, outcomes, {one["number"]: Outcome(**one) for one in before})
    return 0 if all(one.held for one in outcomes) else 1


def run_all(chosen: list[Attack]) -> Iterator[Outcome]:
    """Run attacks in one lab, and in a new one after a broken promise: it may have been left in any state."""
    bench: Bench | None = None
    target: Target | None = None
    try:
        for each in chosen:
            progress(f"{each.number:2}  {each.title}")
            if bench is None:
                bench = Bench({"auth": True, **PLENTY}).start()
                target = Target(bench)
            assert target is not None
            outcome = run_one(target, each)
            progress(f"    {outcome.happened} [{outcome.others}; {outcome.seconds:.0f} s; held: {outcome.held}]")
            if not outcome.held:
                bench.close()
                bench = None
            yield outcome
    finally:
        if bench is not None:
            bench.close()


def run_one(target: Target, each: Attack) -> Outcome:
    """Run one attack while another client is measured."""
    seen = Seen()
    began = time.monotonic()
    held = True
    if target.bench.healthz:
        target.bench.healthz.close()  # the watcher asks in its place
    try:
        if each.watched:
            with target.watched(seen):
                happened = each.run(target)
        else:
            happened = each.run(target)
    except Exception as error:  # noqa: BLE001 (whatever an attack ends with is its outcome)
        happened, held = what_went_wrong(error), False
    others = "not watched"
    if seen.seconds:
        timed = ", ".join(
            f"{name} {seen.quantiles(name)[0] * 1000:.0f} / {seen.quantiles(name)[1] * 1000:.0f} ms"
            for name in seen.seconds
        )
        others = f"{timed}; {seen.failed} failed; API {seen.growth_mb:+.0f} MB, {seen.peak_mb:+.0f} MB at its end"
        if complaints := seen.complaints():
            held = False
            happened = f"{happened}; but {'; '.join(complaints)}"
    return Outcome(each.number, each.title, each.done, happened, others, round(time.monotonic() - began, 1), held)


def write_table(page: Path, outcomes: list[Outcome], before: dict[int, Outcome]) -> None:
    """Put rows into the page; those of attacks that were not done now stay as they are."""
    rows = rows_between(page, BEGIN, END, {each.number: _row(each, before.get(each.number)) for each in outcomes})
    held = sum(row.endswith(KEPT) for row in rows.values())
    earlier = f", {sum(each.held for each in before.values())} before" if before else ""
    said = (
        f"{time.strftime('%d %B %Y')}, {machine()}: {held} of {len(rows)} held{earlier}. Others: the time in which "
        f"half and 99 of 100 answers came; the bar is {SLOWEST_P99_SECONDS * 1000:.0f} ms."
    )
    put_between(page, BEGIN, END, "\n".join([said, "", HEADER, *rows.values()]))


def _row(now: Outcome, before: Outcome | None) -> str:
    earlier = (before.happened, before.others) if before else ("", "")
    held = "yes" if now.held else "no"
    return make_row(now.number, now.title, now.done, earlier[0], now.happened, earlier[1], now.others, held)


if __name__ == "__main__":
    sys.exit(main())
