import pytest
from sqlalchemy import text

from models.errors import Conflict, InvalidRequest, NotFound
from models.store import Store, keys
from models.store.states import Role


def test_a_key_opens_until_it_is_revoked(store: Store) -> None:
    with store.writing() as session:
        _, secret = keys.create(session, "ada", Role.SUBMITTER)
        _, other = keys.create(session, "bob", Role.VIEWER)
    with store.reading() as session:
        found = keys.verify(session, secret)
        assert found is not None
        assert (found.name, found.role) == ("ada", Role.SUBMITTER)
        assert keys.verify(session, other) is not None
        assert [key.name for key in keys.list(session)] == ["ada", "bob"]
    with store.writing() as session:
        assert keys.revoke(session, "ada").revoked_at == keys.revoke(session, "ada").revoked_at
    with store.reading() as session:
        assert keys.verify(session, secret) is None
        assert keys.verify(session, other) is not None
        assert len(keys.list(session)) == 2


@pytest.mark.parametrize("secret", ["", "epochal_", "x" * 100_000, "\x00", "é", "\ud800", "' OR 1=1 --"])
def test_anything_else_opens_nothing(store: Store, secret: str) -> None:
    with store.writing() as session:
        keys.create(session, "ada", Role.VIEWER)
    with store.reading() as session:
        assert keys.verify(session, secret) is None


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
