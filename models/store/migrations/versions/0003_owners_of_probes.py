"""Who asked for a probe, so that one key's learning rate tests leave room for others'."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the owner: nobody's, of those that are there."""
    op.add_column("probes", sa.Column("owner", sa.String(length=100), nullable=True))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("probes", "owner")
