from models.settings import Settings
from models.store import Store, events, experiments
from models.store.rows import add_event
from models.store.states import EventKind
from tests.models.store.helpers import add_experiment, in_processes


def test_events_come_in_order_after_the_last_one_that_was_seen(store: Store) -> None:
    first, second = add_experiment(store), add_experiment(store)
    with store.writing() as session:
        start = events.latest_id(session)
        for number in range(3):
            add_event(session, first, EventKind.NOTICE, {"number": number})
            add_event(session, second, EventKind.NOTICE, {"number": number})
    with store.reading() as session:
        everything = events.since(session, start)
        assert [event.id for event in everything] == list(range(start + 1, start + 7))
        assert events.latest_id(session) == start + 6
        mine = events.since(session, start, first)
        assert [event.data["number"] for event in mine] == [0, 1, 2]
        assert [event.id for event in events.since(session, mine[0].id, first)] == [mine[1].id, mine[2].id]
        assert len(events.since(session, start, limit=2)) == 2
        assert events.since(session, 10**30) == []
        assert events.since(session, -5) == events.since(session, 0)


def test_the_id_of_a_deleted_event_is_not_given_again(store: Store) -> None:
    experiment_id = add_experiment(store)
    with store.reading() as session:
        before = events.latest_id(session)
    with store.writing() as session:
        experiments.delete(session, experiment_id)
    add_experiment(store)
    with store.reading() as session:
        assert events.latest_id(session) == before + 1


def test_no_events_is_zero(store: Store) -> None:
    with store.reading() as session:
        assert events.latest_id(session) == 0
        assert events.since(session, 0) == []


def test_a_reader_that_remembers_the_last_id_misses_no_event_of_any_writer(store: Store, settings: Settings) -> None:
    experiment_id = add_experiment(store)

    def work(store: Store, number: int) -> list[tuple[int, int]]:
        if number:
            for count in range(40):
                with store.writing() as session:
                    add_event(session, experiment_id, EventKind.NOTICE, {"from": [number, count]})
            return []
        seen: list[tuple[int, int]] = []
        last_id = 0
        while len(seen) < 80:
            with store.reading() as session:
                for event in events.since(session, last_id, experiment_id):
                    last_id = event.id
                    if "from" in event.data:
                        seen.append(tuple(event.data["from"]))
        return seen

    seen = max(in_processes(3, work, settings), key=len)
    assert sorted(seen) == [(number, count) for number in (1, 2) for count in range(40)]
