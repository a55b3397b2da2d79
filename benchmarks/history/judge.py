"""Checks of a recorded history: a pure function from entries to violations.

An entry is a JSON object with a `kind`:

request   client, op, began, ended, status (0: no answer), and what the op needs: id, name, tags, key, epochs, spec;
          `found`: what the answer said: {"name", "tags", "status", "attempts"}, or {"epochs": [[1, 0.9, ...], ...]}
snapshot  at, experiments: {id: [status, attempt, [[epoch, attempt], ...]]}, from one transaction on the database; those
          that have changed since the snapshot before
final     experiments: {id: {...}} as they are stored at the end, listed: the ids that GET /experiments gives

Times are of one monotonic clock. A request without an answer may have been done or not: both are possible, and nothing
else is concluded from it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Entry = dict[str, Any]

TERMINAL = ("completed", "failed", "cancelled", "diverged")
PROMISED = (0, 503, 507)
"""Of what is not below 500: no answer, since the API may have been killed; and what is promised when a part is away."""


@dataclass
class Known:
    """What is known of one experiment, from the requests that were sent."""

    accepted: Entry | None = None
    """The request that first named it."""
    deletes: list[Entry] = field(default_factory=list)
    resumes: list[Entry] = field(default_factory=list)
    cancels: list[Entry] = field(default_factory=list)
    looks: list[Entry] = field(default_factory=list)
    metrics: list[Entry] = field(default_factory=list)

    def deleted(self) -> Entry | None:
        """The delete that was acknowledged first."""
        return next((entry for entry in self.deletes if entry["status"] == 204), None)

    def maybe_deleted(self) -> bool:
        """Whether a delete was acknowledged or may have happened."""
        return any(entry["status"] in (204, *PROMISED) for entry in self.deletes)

    def resumed_since(self, moment: float, until: float) -> bool:
        """Whether a resume that may have happened lies, at least in part, between two moments."""
        return any(
            entry["ended"] > moment and entry["began"] < until and entry["status"] in (202, *PROMISED)
            for entry in self.resumes
        )


def judge(history: Sequence[Entry]) -> list[str]:
    """Every violated guarantee in a history, in sentences."""
    requests = sorted((entry for entry in history if entry["kind"] == "request"), key=lambda entry: entry["ended"])
    final = next((entry for entry in history if entry["kind"] == "final"), None)
    if final is None:
        return ["the history has no end"]
    stored: dict[int, Entry] = {int(number): found for number, found in final["experiments"].items()}
    known = _by_experiment(requests)
    return [
        *_answers(requests),
        *_lost(known, stored, final["listed"]),
        *_doubled(requests, stored),
        *_deletions(requests, known, stored),
        *_reads(known),
        *_names(known, stored),
        *_endings(known, stored),
        *_epochs(known, stored),
        *_measured(known, stored),
        *_leases(history, stored),
    ]


def _by_experiment(requests: Iterable[Entry]) -> dict[int, Known]:
    known: dict[int, Known] = defaultdict(Known)
    for entry in requests:
        number = entry.get("id")
        if number is None:
            continue
        one = known[number]
        match entry["op"]:
            case "submit" | "reproduce" if entry["status"] == 202:
                one.accepted = one.accepted or entry
            case "delete":
                one.deletes.append(entry)
            case "resume":
                one.resumes.append(entry)
            case "cancel":
                one.cancels.append(entry)
            case "look":
                one.looks.append(entry)
            case "metrics":
                one.metrics.append(entry)
    return known


def _answers(requests: Iterable[Entry]) -> Iterator[str]:
    """No answer of 500 and above but the promised ones."""
    for entry in requests:
        if entry["status"] >= 500 and entry["status"] not in PROMISED:
            yield f"{entry['op']} of {entry.get('id') or entry.get('name')} was answered {entry['status']}"


def _lost(known: dict[int, Known], stored: dict[int, Entry], listed: Sequence[int]) -> Iterator[str]:
    """An accepted experiment is there at the end, in a terminal state, and in the list."""
    for number, one in known.items():
        if one.accepted is not None and number not in stored and not one.maybe_deleted():
            yield f"experiment {number} was accepted and is missing"
    for number, found in stored.items():
        if found["status"] not in TERMINAL:
            yield f"experiment {number} is still {found['status']} at the end"
    if sorted(listed) != sorted(stored):
        yield f"the list at the end differs from what is stored: {sorted(set(listed) ^ set(stored))}"
    if len(listed) != len(set(listed)):
        yield "the list at the end names an experiment twice"


def _doubled(requests: Iterable[Entry], stored: dict[int, Entry]) -> Iterator[str]:
    """A request makes one experiment at most, and so do all requests with one Idempotency-Key."""
    by_key: dict[str, set[int]] = defaultdict(set)
    sent: set[str] = set()
    for entry in requests:
        if entry["op"] == "submit":
            sent.add(entry["name"])
            if entry["status"] == 202 and entry.get("key"):
                by_key[entry["key"]].add(entry["id"])
        if entry["op"] == "misuse" and entry["status"] == 202:
            yield f"the Idempotency-Key {entry['key']} was taken with another body"
    for key, numbers in by_key.items():
        if len(numbers) > 1:
            yield f"the Idempotency-Key {key} made the experiments {sorted(numbers)}"
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, found in stored.items():
        if found["reproduces"] is None:
            by_name[found["name"]].append(number)
    for name, made in by_name.items():
        if name not in sent:
            yield f"experiment {made[0]}, {name!r}, was asked for by nobody"
        elif len(made) > 1:
            yield f"{name!r} was asked for once and is stored as {sorted(made)}"


def _deletions(requests: Iterable[Entry], known: dict[int, Known], stored: dict[int, Entry]) -> Iterator[str]:
    """What was deleted stays deleted."""
    gone: dict[int, float] = {}
    for number, one in known.items():
        deleted = one.deleted()
        if deleted is None:
            continue
        gone[number] = deleted["ended"]
        if number in stored:
            yield f"experiment {number} was deleted and is there again"
        for entry in (*one.looks, *one.metrics, *one.cancels, *one.resumes):
            if entry["began"] > deleted["ended"] and entry["status"] in (200, 202):
                yield f"experiment {number} was deleted, and {entry['op']} was answered {entry['status']} later"
    for entry in requests:
        if entry["op"] == "list" and entry["status"] == 200:
            for number in entry["found"]["ids"]:
                if gone.get(number, entry["began"]) < entry["began"]:
                    yield f"experiment {number} was deleted, and a list named it later"


def _reads(known: dict[int, Known]) -> Iterator[str]:
    """What was acknowledged is read from then on; an ended experiment stays so, unless it is resumed; attempts grow."""
    for number, one in known.items():
        if one.accepted is None:
            continue
        first_delete = min((entry["began"] for entry in one.deletes), default=float("inf"))
        for entry in (*one.looks, *one.metrics, *one.cancels):
            if entry["began"] > one.accepted["ended"] and entry["status"] == 404 and entry["ended"] < first_delete:
                yield f"experiment {number} was accepted, and {entry['op']} was answered 404 later"
        seen = [entry for entry in (*one.looks, *one.cancels) if entry["status"] == 200]
        for before, after in _in_order(seen):
            was, now = before["found"]["status"], after["found"]["status"]
            if was in TERMINAL and now != was and not one.resumed_since(before["began"], after["ended"]):
                yield f"experiment {number} was {was} and later {now}, without a resume"
            if after["found"]["attempts"] < before["found"]["attempts"]:
                yield f"experiment {number} had {before['found']['attempts']} attempts and later fewer"


def _in_order(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Pairs of requests of which the second began after the first had ended."""
    ordered = sorted(entries, key=lambda entry: entry["ended"])
    latest: Entry | None = None
    for entry in sorted(ordered, key=lambda entry: entry["began"]):
        ended = [other for other in ordered if other["ended"] < entry["began"]]
        latest = ended[-1] if ended else None
        if latest is not None:
            yield latest, entry


def _names(known: dict[int, Known], stored: dict[int, Entry]) -> Iterator[str]:
    """Names and tags are as they were accepted, in every answer and at the end."""
    for number, one in known.items():
        if one.accepted is None:
            continue
        wanted = (one.accepted["name"], one.accepted["tags"])
        for entry in (*one.looks, *one.cancels):
            if entry["status"] == 200 and (entry["found"]["name"], entry["found"]["tags"]) != wanted:
                yield f"experiment {number} was accepted as {wanted} and read as {entry['found']['name']!r}"
        found = stored.get(number)
        if found is not None and (found["name"], found["tags"]) != wanted:
            yield f"experiment {number} was accepted as {wanted} and is stored as {found['name']!r}, {found['tags']}"


def _endings(known: dict[int, Known], stored: dict[int, Entry]) -> Iterator[str]:
    """What an answer showed as ended is so at the end, unless it was resumed; a cancel that was taken ends it."""
    for number, one in known.items():
        found = stored.get(number)
        if found is None:
            continue
        for entry in (*one.looks, *one.cancels):
            if entry["status"] != 200 or one.resumed_since(entry["began"], float("inf")):
                continue
            was = entry["found"]["status"]
            if was in TERMINAL and found["status"] != was:
                yield f"experiment {number} was {was} and is {found['status']} at the end, without a resume"


def _epochs(known: dict[int, Known], stored: dict[int, Entry]) -> Iterator[str]:
    """Epochs are 1..N, each once, in every answer and at the end; a completed experiment has all of them."""
    for number, one in known.items():
        for entry in one.metrics:
            if entry["status"] == 200:
                epochs = [row[0] for row in entry["found"]["epochs"]]
                if epochs != list(range(1, len(epochs) + 1)):
                    yield f"experiment {number} was read with the epochs {epochs}"
    for number, found in stored.items():
        epochs = [row[0] for row in found["epochs"]]
        if epochs != list(range(1, len(epochs) + 1)):
            yield f"experiment {number} has the epochs {epochs}"
        elif found["status"] == "completed" and len(epochs) != found["wanted"]:
            yield f"experiment {number} has completed with {len(epochs)} epochs of {found['wanted']}"
        attempts = [row[1] for row in found["epochs"]]
        if attempts != sorted(attempts):
            yield f"experiment {number}'s epochs are of the attempts {attempts}"


def _measured(known: dict[int, Known], stored: dict[int, Entry]) -> Iterator[str]:
    """A metric that was read is there at the end, with that value: what is trained again comes out the same.

    Epochs beyond the last checkpoint go when a run goes on; if it does not come so far again, they stay away.
    """
    for number, one in known.items():
        found = stored.get(number)
        if found is None:
            continue
        at_end = {row[0]: row[2:] for row in found["epochs"]}
        for entry in one.metrics:
            if entry["status"] != 200:
                continue
            for epoch, *values in entry["found"]["epochs"]:
                if epoch in at_end and at_end[epoch] != values:
                    yield f"experiment {number}'s epoch {epoch} was read as {values} and is {at_end[epoch]} at the end"
                if epoch not in at_end and (found["attempt"] == 1 or found["status"] == "completed"):
                    yield f"experiment {number}'s epoch {epoch} was read and is missing at the end"


def _leases(history: Sequence[Entry], stored: dict[int, Entry]) -> Iterator[str]:
    """No epoch is written for an attempt that another one has followed, and no two attempts overlap."""
    attempts: dict[int, int] = {}
    written: dict[int, dict[int, int]] = defaultdict(dict)
    for entry in sorted((entry for entry in history if entry["kind"] == "snapshot"), key=lambda entry: entry["at"]):
        for text, (_, attempt, epochs) in entry["experiments"].items():
            number = int(text)
            before = attempts.get(number, 0)
            if attempt < before:
                yield f"experiment {number} was at attempt {before} and later at {attempt}"
            for epoch, by in epochs:
                if by < before and written[number].get(epoch) != by:
                    yield f"experiment {number}'s epoch {epoch} was written by attempt {by} after {before} had begun"
                if by > attempt:
                    yield f"experiment {number}'s epoch {epoch} is of attempt {by}, which there is not yet"
            attempts[number], written[number] = attempt, dict(epochs)
    for number, found in stored.items():
        numbers = [run["attempt"] for run in found["runs"]]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"experiment {number} has the attempts {numbers}"
        for run, following in zip(found["runs"], found["runs"][1:], strict=False):
            if run["ended"] is None or run["ended"] > following["started"]:
                yield f"experiment {number}'s attempts {run['attempt']} and {following['attempt']} overlap"
        for run in found["runs"]:
            if run["status"] == "running":
                yield f"experiment {number}'s attempt {run['attempt']} is still open at the end"
