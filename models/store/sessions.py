"""Sessions of the pages, each valid for some hours on behalf of a key. Only the token's SHA-256 is stored."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.store.columns import now
from models.store.keys import digest_of
from models.store.states import Role
from models.store.tables import ApiKey, PageSession

MOST_A_KEY = 50
"""Sessions that one key may have; the oldest end first."""


class Credential(NamedTuple):
    """A valid key or session: the SHA-256 of its token, and its key's name and role."""

    sha256: str
    key_name: str
    role: Role
    expires_at: datetime | None = None
    """When a session ends; None for a key."""


def create(session: Session, key_sha256: str, *, seconds: float) -> str | None:
    """A new session of the key with that digest, as its token; None if the key is not known, or was revoked."""
    key_id = session.scalar(select(ApiKey.id).where(ApiKey.key_sha256 == key_sha256, ApiKey.revoked_at.is_(None)))
    if key_id is None:
        return None
    moment, token = now(), secrets.token_urlsafe(32)
    its_own = select(PageSession.token_sha256).where(PageSession.key_id == key_id)
    old = session.scalars(its_own.order_by(PageSession.created_at.desc()).offset(MOST_A_KEY - 1)).all()
    session.execute(delete(PageSession).where((PageSession.expires_at <= moment) | PageSession.token_sha256.in_(old)))
    expires_at = moment + timedelta(seconds=seconds)
    session.add(PageSession(token_sha256=digest_of(token), key_id=key_id, created_at=moment, expires_at=expires_at))
    return token


def end(session: Session, token_sha256: str) -> None:
    """End a session, if there is one."""
    session.execute(delete(PageSession).where(PageSession.token_sha256 == token_sha256))


def credentials(session: Session) -> Sequence[Credential]:
    """Every key that was not revoked, and every session of one that has not expired."""
    usable = ApiKey.revoked_at.is_(None)
    keys = session.execute(select(ApiKey.key_sha256, ApiKey.name, ApiKey.role).where(usable))
    alive = (
        select(PageSession.token_sha256, ApiKey.name, ApiKey.role, PageSession.expires_at)
        .join(ApiKey, ApiKey.id == PageSession.key_id)
        .where(usable, PageSession.expires_at > now())
    )
    return [Credential(*row) for row in (*keys, *session.execute(alive))]
