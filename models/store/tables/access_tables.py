"""Tables of API keys, and of browsers that have logged in."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.store.columns import now
from models.store.states import Role
from models.store.tables.base import Base, BigInt


class ApiKey(Base):
    """An API key's name, role and SHA-256. The key itself is not stored."""

    __tablename__ = "api_keys"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[Role]
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]


class PageSession(Base):
    """A browser that has logged in. The token in its cookie is not stored."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "key_id"),)

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[BigInt] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
