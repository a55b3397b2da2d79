"""API keys. A key is shown once, when it is created; only its SHA-256 is stored."""

import hashlib
import secrets
from collections.abc import Sequence
from itertools import count

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import Conflict, InvalidRequest, NotFound
from models.store.columns import now
from models.store.states import Role
from models.store.tables import ApiKey

PREFIX = "epochal_"
FIRST_NAME = "first"


def create(session: Session, name: str, role: Role) -> tuple[ApiKey, str]:
    """Create a key and return its text, which is not stored. Raises Conflict for a name in use."""
    if not 1 <= len(name) <= 100:
        raise InvalidRequest(f"a key's name has 1 to 100 characters, not {len(name)}")
    if session.scalar(select(ApiKey.id).where(ApiKey.name == name)) is not None:
        raise Conflict(f"there is a key named {name!r} already", fix="take another name")
    text = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name=name, role=Role(role), key_sha256=digest_of(text))
    session.add(key)
    session.flush()
    return key, text


def revoke(session: Session, name: str) -> ApiKey:
    """Revoke a key. Its name stays reserved, since experiments refer to it."""
    key = session.scalar(select(ApiKey).where(ApiKey.name == name))
    if key is None:
        raise NotFound(f"there is no key named {name!r}")
    key.revoked_at = key.revoked_at or now()
    return key


def list(session: Session) -> Sequence[ApiKey]:  # noqa: A001 (read as keys.list)
    """Every key, revoked ones too, by name."""
    return session.scalars(select(ApiKey).order_by(ApiKey.name)).all()


def digest_of(text: str) -> str:
    """The SHA-256 that is stored in place of a secret. A long random secret needs no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def create_first(session: Session) -> str | None:
    """Create a first key, with the role of a submitter, and return its text; None if the lab has a valid key."""
    known = session.scalars(select(ApiKey)).all()
    if any(key.revoked_at is None and key.role is Role.SUBMITTER for key in known):
        return None
    taken = {key.name for key in known}
    names = (FIRST_NAME if number == 1 else f"{FIRST_NAME}-{number}" for number in count(1))
    _, text = create(session, next(name for name in names if name not in taken), Role.SUBMITTER)
    return text
