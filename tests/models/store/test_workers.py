from datetime import timedelta

from models.store import Store, workers
from models.store.columns import now
from models.store.tables import WorkerRow


def beat(store: Store, name: str) -> None:
    with store.writing() as session:
        workers.beat(session, name, host="lab", pid=12, device="cpu")


def test_a_worker_lives_while_it_beats_and_until_it_leaves(store: Store) -> None:
    for _ in range(3):
        beat(store, "one")
    beat(store, "two")
    with store.reading() as session:
        found = workers.live(session)
        assert [(row.name, row.heartbeat, row.host, row.pid, row.device) for row in found] == [
            ("one", 3, "lab", 12, "cpu"),
            ("two", 1, "lab", 12, "cpu"),
        ]
    with store.writing() as session:
        session.get_one(WorkerRow, "one").seen_at = now() - timedelta(seconds=20)
    with store.reading() as session:
        assert [row.name for row in workers.live(session)] == ["two"]
        assert [row.name for row in workers.live(session, within_seconds=60)] == ["one", "two"]
    with store.writing() as session:
        workers.leave(session, "two")
        workers.leave(session, "two")
        assert workers.live(session) == []
