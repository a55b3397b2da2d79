import math

import pytest

from models.errors import NotFound
from models.settings import Settings
from models.store import Store, probes
from models.store.states import ProbeKind, ProbeStatus
from tests.models.store.helpers import in_processes, make_spec


def create(store: Store) -> int:
    with store.writing() as session:
        return probes.create(session, ProbeKind.LR_TEST, make_spec(), {"steps": 100}).id


def test_a_probe_waits_is_claimed_and_finished(store: Store) -> None:
    first, second = create(store), create(store)
    with store.writing() as session:
        probe = probes.claim_next(session, "worker")
        assert probe is not None
        assert (probe.id, probe.kind, probe.options) == (first, ProbeKind.LR_TEST, {"steps": 100})
        assert probe.spec == make_spec().as_json()
    with store.writing() as session:
        probes.beat(session, first)
        assert probes.running(session) == [(first, 1, "worker")]
        assert probes.finish(session, first, {"points": [{"lr": 0.1, "loss": math.nan}]})
    with store.reading() as session:
        found = probes.get(session, first)
        assert (found.status, found.result) == (ProbeStatus.COMPLETED, {"points": [{"lr": 0.1, "loss": None}]})
        assert found.finished_at is not None
        assert probes.get(session, second).status is ProbeStatus.QUEUED


def test_what_has_ended_does_not_end_again(store: Store) -> None:
    probe_id = create(store)
    with store.writing() as session:
        probes.claim_next(session, "worker")
        assert probes.fail(session, probe_id, "its worker fell silent")
    with store.writing() as session:
        assert not probes.finish(session, probe_id, {})
        assert not probes.fail(session, probe_id, "again")
        found = probes.get(session, probe_id)
        assert (found.status, found.reason, found.result) == (ProbeStatus.FAILED, "its worker fell silent", None)
        assert probes.claim_next(session, "worker") is None


def test_a_probe_that_is_given_back_goes_to_the_next_worker(store: Store) -> None:
    probe_id = create(store)
    with store.writing() as session:
        assert probes.any_waiting(session)
        probes.claim_next(session, "lost")
        assert not probes.any_waiting(session)
        probes.give_back(session, probe_id)
    with store.writing() as session:
        again = probes.claim_next(session, "next")
        assert again is not None
        assert (again.id, again.claimed_by) == (probe_id, "next")
        probes.finish(session, probe_id, {})
        probes.give_back(session, probe_id)
        assert probes.get(session, probe_id).status is ProbeStatus.COMPLETED, "what has ended stays ended"


def test_of_many_processes_one_gets_each_probe(store: Store, settings: Settings) -> None:
    wanted = [create(store) for _ in range(12)]

    def work(store: Store, number: int) -> list[int]:
        won = []
        while True:
            with store.writing() as session:
                probe = probes.claim_next(session, f"worker-{number}")
            if probe is None:
                return won
            won.append(probe.id)

    won = [probe_id for group in in_processes(4, work, settings) for probe_id in group]
    assert sorted(won) == wanted


@pytest.mark.parametrize("probe_id", [0, 1, 2**70])
def test_an_unknown_probe_is_not_found(store: Store, probe_id: int) -> None:
    with pytest.raises(NotFound), store.reading() as session:
        probes.get(session, probe_id)
