"""Searches: the values of a trial, what a search has found out, and requests to end an experiment early."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; studies so far are no searches."""
    op.add_column("experiments", sa.Column("stop_requested", sa.Text(), nullable=True))
    op.add_column("studies", sa.Column("search", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("study_rows", sa.Column("params", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Remove them, with what they hold."""
    op.drop_column("study_rows", "params")
    op.drop_column("studies", "search")
    op.drop_column("experiments", "stop_requested")
