from models.store import Status, Store, runs
from models.store.watching import glimpse
from tests.models.store.helpers import add_experiment, start


def test_a_glimpse_tells_what_moves_of_those_that_exist(store: Store) -> None:
    claimed, waiting = start(store), add_experiment(store)
    with store.writing() as session:
        runs.renew(session, claimed, {"epoch": 3})
    with store.reading() as session:
        found = glimpse(session, [claimed.experiment_id, waiting, 99])
        assert found == {
            claimed.experiment_id: (Status.RUNNING, None, {"epoch": 3}),
            waiting: (Status.QUEUED, None, None),
        }
        assert glimpse(session, []) == {}
