"""`python -m benchmarks.attack.watching HOST:PORT KEY SOURCE`: a well-behaved client that measures its latency.

Asks for /healthz and for a list of experiments in turn, over new connections from the address SOURCE, until standard
input ends; then prints the seconds that each answer took as JSON. A process of its own, so that what the attacker
computes does not count. Imports nothing of the lab.
"""

import http.client
import json
import select
import sys
import time

PAUSE_SECONDS = 0.03
TIMEOUT_SECONDS = 15.0


def ask(address: str, source: str, path: str, headers: dict[str, str]) -> tuple[float, int]:
    """Seconds until the whole answer was there, and its status; status 0 where none came."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS, source_address=(source, 0))
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return time.monotonic() - began, response.status
    except (OSError, http.client.HTTPException):
        return time.monotonic() - began, 0
    finally:
        connection.close()


def main() -> None:
    """Ask until standard input ends."""
    address, key, source = sys.argv[1:]
    seconds: dict[str, list[float]] = {"healthz": [], "list": []}
    failed = 0
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        for name, path, headers in (
            ("healthz", "/healthz", {}),
            ("list", "/api/v1/experiments?limit=20", {"X-API-Key": key}),
        ):
            taken, status = ask(address, source, path, headers)
            seconds[name].append(taken)
            failed += status != 200
    print(json.dumps({**seconds, "failed": failed}))


if __name__ == "__main__":
    main()
