"""Finds the group of each file by a regular expression, in a separate process: `python -m models.data.grouping`.

A short expression can take longer than anybody waits (`(a|a)*b` on a path of a hundred a's), and nothing stops
Python's own matching from outside of it. So it runs in a process with a limit on its processor time.
docs/decisions/imports.md names what else was looked at.
"""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence

from models.errors import ArchiveError
from models.imports import module_command, own_packages_first
from models.text import plural

MODULE = "models.data.grouping"
MAX_SECONDS = 20
"""Of processor time for all paths; 500,000 take 1 s with an ordinary expression."""
MAX_ADDRESS_SPACE = 2_000_000_000
"""Bytes."""


def find_groups(paths: Sequence[str], pattern: str) -> list[str | None]:
    """The group of each path: the first parenthesis of a regular expression in it, or the whole match.

    None where that is not found, or empty.

    Raises ArchiveError for an expression that takes too long.
    """
    done = subprocess.run(  # noqa: S603  (this project's own module)
        module_command(MODULE),
        input=json.dumps([MAX_SECONDS, pattern, list(paths)]).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=own_packages_first(os.environ),
        check=False,
    )
    if done.returncode == 0:
        groups: list[str | None] = json.loads(done.stdout)
        return groups
    limit = f"more than {MAX_SECONDS} s of processor time"
    needs = limit if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL) else "more memory than it is given"
    raise ArchiveError(
        f"the regular expression {pattern!r} of group takes {needs} for the paths of {plural(len(paths), 'image')}",
        fix="write it without a repetition inside a repetition, such as (a+)+ or (a|a)*, or name a column of the table",
    )


def main() -> int:
    """Read a limit in seconds, an expression and paths as JSON from the standard input, and write the paths' groups."""
    seconds, pattern, paths = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    with contextlib.suppress(ValueError, OSError):  # macOS does not take it
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    expression = re.compile(pattern)
    number = min(1, expression.groups)
    found = (expression.search(path) for path in paths)
    json.dump([None if match is None else match.group(number) or None for match in found], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
