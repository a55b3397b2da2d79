import pytest
from sqlalchemy import text

from models.errors import Conflict, InvalidRequest, NotFound
from models.store import Store, keys
from models.store.states import Role


def test_keys_are_listed_by_name_and_a_revoked_one_stays_in_the_list(store: Store) -> None:
    with store.writing() as session:
        keys.create(session, "bob", Role.VIEWER)
        keys.create(session, "ada", Role.SUBMITTER)
        assert keys.revoke(session, "ada").revoked_at == keys.revoke(session, "ada").revoked_at
    with store.reading() as session:
        found = [(key.name, key.role, key.revoked_at is None) for key in keys.list(session)]
    assert found == [("ada", Role.SUBMITTER, False), ("bob", Role.VIEWER, True)]


def test_the_key_itself_is_not_in_the_database(store: Store) -> None:
    with store.writing() as session:
        _, secret = keys.create(session, "ada", Role.VIEWER)
    assert len(secret) > 40
    with store.reading() as session:
        stored = session.execute(text("SELECT * FROM api_keys")).one()
    assert all(secret not in str(value) and secret[8:] not in str(value) for value in stored)


def test_names_are_taken_once(store: Store) -> None:
    with store.writing() as session:
        keys.create(session, "ada", Role.VIEWER)
        keys.revoke(session, "ada")
        with pytest.raises(Conflict, match="ada"):
            keys.create(session, "ada", Role.VIEWER)
        for bad in ("", "x" * 101):
            with pytest.raises(InvalidRequest):
                keys.create(session, bad, Role.VIEWER)
        with pytest.raises(NotFound):
            keys.revoke(session, "eve")
