"""Predictions a second, and how long one takes: this lab beside two rivals and what the machine could do.

    make bench-serving                  .venv/bin/python -m benchmarks.serving [--quick] [--json]

Closed loop: each of 1, 8 or 64 clients sends its next upload when it has the answer to its last one. The lab is what
`epochal up` starts. The rivals are FastAPI with torch in an endpoint of fifteen lines (benchmarks/serving_rival.py) and
LitServe with batches of 16 (benchmarks/serving_litserve.py), which is installed into build/ for it. They are asked in
turn, in short rounds, so that what else the machine does meets all of them; those that are not asked are stopped. The
ceiling decodes and predicts on all cores without HTTP, right before and right after each turn of the lab's: the lab's
share of it is the median of the rounds' shares. Networks have random weights: how long one takes does not depend on
them.

Parts of their own: --beside-training (predictions while a worker trains), --soak (memory over 100,000 requests),
--folder (`epochal classify` of 10,000 images).
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import serving_parts
from benchmarks.serving_ceiling import ceiling
from benchmarks.serving_lab import Answers, address_of, ask, form_of, lab, process, running, warm_up
from benchmarks.serving_networks import CASES
from models.cores import usable_cores

OWN = "epochal"
CLIENTS = (1, 8, 64)
REPOSITORY = Path(__file__).parent.parent
LITSERVE = "litserve==0.2.19"
RIVALS = {
    "fastapi": ("benchmarks.serving_rival", {}),
    "fastapi_one_thread": ("benchmarks.serving_rival", {"OMP_NUM_THREADS": "1"}),
    "litserve": ("benchmarks.serving_litserve", {}),
}
"""Module and environment of each. torch has as many threads as there are cores where it is not told otherwise."""
NAMES = {
    "fastapi": "plain FastAPI and torch",
    "fastapi_one_thread": "the same, torch in one thread",
    "litserve": "LitServe, batches of 16",
}


def install_litserve() -> str:
    """The folder with LitServe and what it needs; installed at the first use."""
    folder = REPOSITORY / "build" / LITSERVE
    if not (folder / "litserve").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-qqq", "--disable-pip-version-check", "--target", str(folder)]
        subprocess.run([*pip, "-c", str(REPOSITORY / "constraints.txt"), LITSERVE], check=True)
    return str(folder)


def measure(rounds: int, seconds: float, cases: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each case and number of clients."""
    rows = []
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        started = stack.enter_context(lab(folder))
        pids, files = {OWN: started.pid}, {name: folder / f"{name}.json" for name in RIVALS}
        for name, (module, environment) in RIVALS.items():
            packages = [install_litserve()] if name == "litserve" else []
            variables = {**environment, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *packages])}
            pids[name] = stack.enter_context(process(sys.executable, "-m", module, str(files[name]), **variables)).pid
        urls = {OWN: started.url, **{name: address_of(file) for name, file in files.items()}}
        best = stack.enter_context(ceiling())
        for number, case in enumerate(CASES):
            if case not in cases:
                continue
            body = form_of(case)
            paths = {OWN: started.path(case), **dict.fromkeys(RIVALS, f"/predict/{number}")}
            for name, url in urls.items():
                with running(pids[name]):
                    warm_up(url, paths[name], body)
            best.per_second(case, 0.1)
            for clients in CLIENTS:
                found = {name: Answers() for name in urls}
                most, shares = list[float](), list[float]()
                for _ in range(rounds):
                    around = [best.per_second(case, seconds / 2)]
                    for name, url in urls.items():
                        with running(pids[name]):
                            turn = ask(url, paths[name], body, clients, seconds)
                        found[name].add(turn)
                        if name == OWN:
                            around.append(best.per_second(case, seconds / 2))
                            shares.append(turn.per_second / statistics.mean(around))
                    most += around
                rows.append(_row(case, clients, found, statistics.mean(most), shares))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _row(case: str, clients: int, found: dict[str, Answers], most: float, shares: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case, "clients": clients, "ceiling": round(most, 1)}
    for name, answers in found.items():
        row[name] = {
            "per_second": round(answers.per_second, 1),
            "p50_ms": round(answers.milliseconds(50), 2),
            "p99_ms": round(answers.milliseconds(99), 2),
        }
    own, others = row[OWN], [row[name] for name in RIVALS]
    row["times_the_best_rival"] = round(own["per_second"] / max(one["per_second"] for one in others), 2)
    for percentile in ("p50_ms", "p99_ms"):
        row[f"{percentile}_of_the_best_rival"] = round(own[percentile] / min(one[percentile] for one in others), 2)
    row["of_the_ceiling"] = round(statistics.median(shares), 2)
    row["of_the_ceiling_by_round"] = [round(share, 2) for share in shares]
    return row


def cpu_name() -> str:
    """The processor as the system names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    names = (OWN, *RIVALS)
    heads = ["Epochal, requests/s (p50, p99 ms)", *(NAMES[name] for name in RIVALS)]
    lines = [
        f"| network | clients | {' | '.join(heads)} | of the best rival: requests/s, p50, p99 | of the ceiling |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for row in rows:
        cells = ["{per_second:g} ({p50_ms:g}, {p99_ms:g})".format(**row[name]) for name in names]
        by_round = row["of_the_ceiling_by_round"]
        ratios = [row[key] for key in ("times_the_best_rival", "p50_ms_of_the_best_rival", "p99_ms_of_the_best_rival")]
        lines.append(
            f"| {row['case']} | {row['clients']} | {' | '.join(cells)} | {', '.join(f'{ratio:g}' for ratio in ratios)} "
            f"| {row['of_the_ceiling']:g} ({min(by_round):g} to {max(by_round):g}) of {row['ceiling']:g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter rounds: under six minutes")
    parser.add_argument("--json", action="store_true", help="rows as JSON in place of a table")
    parser.add_argument("--case", action="append", choices=list(CASES), help="one network alone; may be repeated")
    parser.add_argument("--beside-training", action="store_true", help="latency while a worker trains, and its speed")
    parser.add_argument("--soak", type=int, nargs="?", const=100_000, metavar="REQUESTS", help="memory over requests")
    parser.add_argument(
        "--folder", type=int, nargs="?", const=10_000, metavar="IMAGES", help="epochal classify (of one --case)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that stopped servers are ended with the benchmark
    cases = arguments.case or list(CASES)
    parts = {
        "beside_training": serving_parts.beside_training if arguments.beside_training else None,
        "soak": (lambda: serving_parts.soak(arguments.soak)) if arguments.soak else None,
        "folder": (lambda: serving_parts.folder(arguments.folder, cases[0])) if arguments.folder else None,
    }
    chosen = {name: part() for name, part in parts.items() if part is not None}
    about = {"cpu": cpu_name(), "cores": usable_cores(), "load_average": os.getloadavg()[2]}
    if chosen:
        print(json.dumps({**about, **chosen}, indent=1))
        return
    rows = measure(rounds=2 if arguments.quick else 6, seconds=2.0 if arguments.quick else 5.0, cases=cases)
    if arguments.json:
        print(json.dumps({**about, "rows": rows}, indent=1))
    else:
        print(f"{cpu_name()}, {usable_cores()} cores, load average {os.getloadavg()[2]:.1f}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
