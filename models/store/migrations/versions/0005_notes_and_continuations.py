"""Notes on experiments, and which experiment one continues."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns; experiments so far have no notes and continue none."""
    op.add_column("experiments", sa.Column("notes", sa.Text(), nullable=True))
    op.add_column("experiments", sa.Column("continues", BIG, nullable=True))
    op.create_index(op.f("ix_experiments_continues"), "experiments", ["continues"])


def downgrade() -> None:
    """Remove them, with what they hold."""
    op.drop_index(op.f("ix_experiments_continues"), "experiments")
    op.drop_column("experiments", "continues")
    op.drop_column("experiments", "notes")
