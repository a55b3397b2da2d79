"""`python -m benchmarks.history`: inject random faults while clients use a lab, then check the recorded answers.

--seed N        what is done and when (1)
--minutes M     how long (10)
--database D    sqlite or postgres; the latter is Debian's server in a private cluster
--clients N     how many clients (3)
--keep FILE     where the history is written, a JSON object a line (a temporary file, kept only if something was found)
--judge FILE    judge a history that was written earlier, and do nothing else

Exits with 1 when something that was promised was not kept.
"""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.faults.harness import Bench, progress
from benchmarks.history.breaking import Breaker
from benchmarks.history.clients import API, TERMINAL, Client, Shared
from benchmarks.history.judge import judge
from benchmarks.history.recording import History, Observer, final_state
from models.data.dataset import load_dataset
from models.settings import Settings
from models.store import Store
from tests.postgres import Postgres

LAB = {"workers": 2, "lease_seconds": 4.0, "auth": True, "max_attempts": 12}
PLENTY = {"requests_per_minute": 1_000_000, "max_queued": 100_000}
SETTLING_SECONDS = 300.0


def main() -> int:
    """Record and judge one history; 1 when it shows that a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="what is done, and when")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the lab is broken")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--clients", type=int, default=3, help="how many clients there are")
    parser.add_argument("--keep", type=Path, help="where the history is written")
    parser.add_argument("--judge", type=Path, help="judge a history that was written earlier")
    options = parser.parse_args()
    if options.judge:
        return report([json.loads(line) for line in options.judge.read_text().splitlines()], options.judge)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is stopped and its folder removed
    load_dataset("cifar10", Settings())
    path = options.keep or Path(tempfile.mkstemp(prefix="history-", suffix=".jsonl")[1])
    history = History(path)
    history.add("begin", seed=options.seed, minutes=options.minutes, database=options.database)
    try:
        record(history, options)
    finally:
        history.close()
    code = report(history.entries, path)
    if not code and not options.keep:
        path.unlink()
    return code


def record(history: History, options: argparse.Namespace) -> None:
    """Run a lab, its clients and its faults for a while; then repair everything and record the final state."""
    with ExitStack() as stack:
        server = stack.enter_context(Postgres()) if options.database == "postgres" else None
        database: dict[str, Any] = {"database_url": server.url} if server else {}
        bench = Bench({**LAB, **PLENTY, **database})
        stack.callback(bench.close)
        bench.start()
        observer = Observer(history, lambda: Store(bench.settings))
        shared = Shared()
        url, key = bench.lab.url, bench.lab.first_key
        clients = [Client(number, options.seed, url, key, history, shared) for number in range(1, options.clients + 1)]
        breaker = Breaker(options.seed, bench, history, server)
        threads: list[Client | Breaker] = [*clients, breaker]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + options.minutes * 60
        while time.monotonic() < deadline and all(thread.failed is None for thread in threads):
            time.sleep(1.0)
            if int(time.monotonic()) % 60 == 0:
                progress(f"{history.count('request')} requests, {history.count('fault')} faults")
        breaker.close()
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join()
        for thread in threads:
            if thread.failed is not None:
                raise thread.failed
        settle(Client(0, options.seed, url, key, history, shared), shared)
        observer.close()
        listed = list_all(bench)
        history.add("final", experiments=final_state(bench.store), listed=listed)


def settle(client: Client, shared: Shared) -> None:
    """Wait until everything has ended. What would never end is cancelled, unless a cancel was acknowledged before."""
    deadline = time.monotonic() + SETTLING_SECONDS
    for one in list(shared.sent):
        if one.id is None and one.key is not None:
            client.post(one)  # now the answer comes
    while time.monotonic() < deadline:
        _, response = client.send("GET", f"{API}?limit=200&status=queued")
        _, other = client.send("GET", f"{API}?limit=200&status=running")
        if response is None or other is None or response.status_code != 200 or other.status_code != 200:
            time.sleep(0.5)
            continue
        active = [item["id"] for item in (*response.json()["items"], *other.json()["items"])]
        if not active:
            return
        known = {one.id: one for one in shared.sent if one.id is not None}
        for number in active:
            if number not in known:
                client.send("POST", f"{API}/{number}/cancel")  # accepted, and nobody was told of it
            elif known[number].endless and not known[number].cancelled:
                client.cancel_one(known[number])
        time.sleep(1.0)


def list_all(bench: Bench) -> list[int]:
    """The numbers of all experiments, page by page."""
    numbers: list[int] = []
    cursor = None
    while True:
        page = bench.client.get(API, params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        numbers += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return numbers


def report(entries: Sequence[dict[str, Any]], path: Path) -> int:
    """Print what was done and what was found."""
    requests = [entry for entry in entries if entry["kind"] == "request"]
    faults = Counter(
        re.split(r" for | and started ", entry["what"])[0] for entry in entries if entry["kind"] == "fault"
    )
    begin = next((entry for entry in entries if entry["kind"] == "begin"), {})
    final: dict[str, Any] = next((entry for entry in entries if entry["kind"] == "final"), {"experiments": {}})
    answers = Counter(entry["status"] for entry in requests)
    ends = Counter(found["status"] for found in final["experiments"].values())
    attempts = sum(found["attempt"] for found in final["experiments"].values())
    print(f"seed {begin.get('seed')}, {begin.get('minutes')} minutes, {begin.get('database')}")
    for op, number in sorted(Counter(entry["op"] for entry in requests).items()):
        print(f"  {number:6} {op}")
    print(f"{len(requests)} requests; answers: {', '.join(f'{status}: {n}' for status, n in sorted(answers.items()))}")
    for what, number in sorted(faults.items()):
        print(f"  {number:6} {what}")
    stored = ", ".join(f"{number} {status}" for status, number in sorted(ends.items()) if status in TERMINAL)
    print(f"{sum(faults.values())} faults; {len(final['experiments'])} experiments, {attempts} attempts: {stored}")
    findings = judge(entries)
    for finding in findings[:50]:
        print(f"FOUND: {finding}")
    print(f"{len(findings)} findings" + (f"; the history is in {path}" if findings or path.exists() else ""))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
