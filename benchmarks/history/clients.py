"""Clients that send random requests by a seed (submit, read, cancel, resume, delete) and record every answer."""

import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.history.recording import MEASURED, History

API = "/api/v1/experiments"
TERMINAL = ("completed", "failed", "cancelled", "diverged")
MOST_UNFINISHED = 10
"""No more is submitted while this many are queued or run, so that faults and not a full queue are tested."""
TAGS = ("a", "b", "later", "ü", "two words")
ENDLESS = 10_000


@dataclass
class Submitted:
    """A submitted body, and its experiment once an answer has named it."""

    name: str
    tags: list[str]
    body: bytes
    key: str | None
    endless: bool
    id: int | None = None
    status: str = "queued"
    keep: bool = False
    """Never deleted: a reproduction, an Idempotency-Key or a request under way depends on it."""
    cancelled: bool = False
    """Whether a cancel was acknowledged, and no resume sent since."""


@dataclass
class Shared:
    """The state that the clients share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: list[Submitted] = field(default_factory=list)

    def choose(self, rng: random.Random, *, statuses: tuple[str, ...] | None = None) -> Submitted | None:
        """One of those that are known by their number."""
        with self.lock:
            known = [one for one in self.sent if one.id is not None and (statuses is None or one.status in statuses)]
        return rng.choice(known) if known else None

    def unfinished(self) -> int:
        """How many are not known to have ended."""
        with self.lock:
            return sum(one.id is not None and one.status not in (*TERMINAL, "deleted") for one in self.sent)


class Client(threading.Thread):
    """One client: a request at a time."""

    def __init__(self, number: int, seed: int, url: str, key: str | None, history: History, shared: Shared) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number, self.history, self.shared = number, history, shared
        self.rng = random.Random(f"{seed}/{number}")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=20.0, trust_env=False)
        self.count = 0
        self.stopping = threading.Event()
        self.failed: BaseException | None = None

    def run(self) -> None:
        steps = [
            (self.submit, 14), (self.look, 30), (self.metrics, 20), (self.list, 8), (self.cancel, 8), (self.resume, 6),
            (self.delete, 6), (self.repeat, 8), (self.misuse, 2), (self.reproduce, 2),
        ]  # fmt: skip
        try:
            while not self.stopping.is_set():
                (step,) = self.rng.choices([step for step, _ in steps], [weight for _, weight in steps])
                step()
                self.stopping.wait(self.rng.uniform(0.02, 0.3))
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.failed = error
        finally:
            self.http.close()

    # Requests

    def submit(self) -> None:
        if self.shared.unfinished() >= MOST_UNFINISHED:
            self.look()
            return
        self.count += 1
        name = f"client {self.number}, experiment {self.count}"
        tags = self.rng.sample(TAGS, self.rng.randint(0, 3))
        endless = self.rng.random() < 0.08
        spec = {
            "model": "baseline",
            "name": name,
            "tags": tags,
            "seed": self.rng.randint(0, 1000),
            "dataset": {"name": "cifar10", "train_limit": self.rng.choice([64, 160, 320]), "val_limit": 50},
            "epochs": ENDLESS if endless else self.rng.randint(2, 8),
            "batch_size": 32,
        }
        key = f"{self.number}-{self.count}" if self.rng.random() < 0.5 else None
        one = Submitted(name, tags, json.dumps(spec).encode(), key, endless, keep=key is not None)
        with self.shared.lock:
            self.shared.sent.append(one)
        self.post(one)

    def repeat(self) -> None:
        """The same body with the same Idempotency-Key, whatever the first answer was."""
        with self.shared.lock:
            keyed = [one for one in self.shared.sent if one.key is not None]
        if keyed:
            self.post(self.rng.choice(keyed[-30:]))

    def post(self, one: Submitted) -> None:
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": one.key} if one.key else {})}
        began, response = self.send("POST", API, content=one.body, headers=headers)
        document = json_of(response) if response is not None and response.status_code == 202 else None
        number = document["id"] if document else None
        self.note("submit", began, response, id=number, name=one.name, tags=one.tags, key=one.key)
        if document is not None:
            with self.shared.lock:
                one.id = number

    def misuse(self) -> None:
        """An Idempotency-Key whose first request was acknowledged, with another body."""
        one = self.shared.choose(self.rng)
        if one is None or one.key is None:
            return
        headers = {"Content-Type": "application/json", "Idempotency-Key": one.key}
        began, response = self.send("POST", API, content=one.body.replace(b'"seed": ', b'"seed": 1'), headers=headers)
        self.note("misuse", began, response, key=one.key, name=one.name)

    def reproduce(self) -> None:
        one = self.shared.choose(self.rng, statuses=("completed",))
        if one is None or self.shared.unfinished() >= MOST_UNFINISHED:
            return
        one.keep = True
        with self.shared.lock:
            if one.status == "deleted":
                return
        began, response = self.send("POST", f"{API}/{one.id}/reproduce")
        document = json_of(response) if response is not None and response.status_code == 202 else None
        number = document["id"] if document else None
        self.note("reproduce", began, response, id=number, of=one.id, name=one.name, tags=one.tags)
        if number is not None:
            again = Submitted(one.name, one.tags, one.body, None, one.endless, id=number, keep=True)
            with self.shared.lock:
                self.shared.sent.append(again)

    def look(self) -> None:
        one = self.shared.choose(self.rng)
        if one is not None:
            self.learn(one, "look", *self.send("GET", f"{API}/{one.id}"))

    def cancel(self) -> None:
        one = self.shared.choose(self.rng, statuses=("queued", "running"))
        if one is not None and (one.endless or self.rng.random() < 0.4):
            self.cancel_one(one)

    def cancel_one(self, one: Submitted) -> None:
        """Ask for a cancel, and note whether it was taken."""
        began, response = self.send("POST", f"{API}/{one.id}/cancel")
        one.cancelled = one.cancelled or (response is not None and response.status_code == 200)
        self.learn(one, "cancel", began, response)

    def resume(self) -> None:
        one = self.shared.choose(self.rng, statuses=("failed", "cancelled"))
        if one is None or self.shared.unfinished() >= MOST_UNFINISHED:
            return
        one.cancelled = False
        began, response = self.send("POST", f"{API}/{one.id}/resume")
        one.status = "queued" if response is not None and response.status_code == 202 else one.status
        self.note("resume", began, response, id=one.id)

    def delete(self) -> None:
        one = self.shared.choose(self.rng, statuses=TERMINAL)
        if one is None or one.keep:
            return
        began, response = self.send("DELETE", f"{API}/{one.id}")
        self.note("delete", began, response, id=one.id)
        if response is None or response.status_code == 204:
            one.status = "deleted"  # looked at all the same: it must stay so

    def metrics(self) -> None:
        one = self.shared.choose(self.rng)
        if one is None:
            return
        began, response = self.send("GET", f"{API}/{one.id}/metrics")
        found = None
        if response is not None and response.status_code == 200:
            rows = json_of(response)["epochs"]
            found = {"epochs": [[row["epoch"], *(row[name] for name in MEASURED)] for row in rows]}
        self.note("metrics", began, response, id=one.id, found=found)

    def list(self) -> None:
        began, response = self.send("GET", f"{API}?limit=200")
        found = None
        if response is not None and response.status_code == 200:
            found = {"ids": [item["id"] for item in json_of(response)["items"]]}
        self.note("list", began, response, found=found)

    # How they are sent and noted

    def send(self, method: str, path: str, **kwargs: Any) -> tuple[float, httpx.Response | None]:
        """When it was begun, and the answer; None where none came whole."""
        began = self.history.now()
        try:
            return began, self.http.request(method, path, **kwargs)
        except httpx.HTTPError:
            time.sleep(0.5)
            return began, None

    def note(self, op: str, began: float, response: httpx.Response | None, **members: Any) -> None:
        status = 0 if response is None else response.status_code
        ended = self.history.now()
        self.history.add("request", client=self.number, op=op, began=began, ended=ended, status=status, **members)

    def learn(self, one: Submitted, op: str, began: float, response: httpx.Response | None) -> None:
        """Note an answer that shows an experiment."""
        found = None
        if response is not None and response.status_code == 200:
            document = json_of(response)
            found = {"attempts": attempts_of(document), **{name: document[name] for name in ("name", "tags", "status")}}
            if one.status != "deleted":
                one.status = found["status"]
        self.note(op, began, response, id=one.id, found=found)


def json_of(response: httpx.Response) -> Any:
    """What an answer holds."""
    return response.json()


def attempts_of(document: dict[str, Any]) -> int:
    """The newest attempt."""
    return max((run["attempt"] for run in document["runs"]), default=0)
