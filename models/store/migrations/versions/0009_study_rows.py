"""The fewest epochs that a budget leaves a row of a study, in place of whether it keeps all."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
ALL = 1_000_000
"""More epochs than any row has: what rows so far keep."""


def upgrade() -> None:
    """Add the column; a row that kept its epochs keeps them."""
    op.add_column("study_rows", sa.Column("min_epochs", sa.Integer(), nullable=False, server_default="1"))
    rows = sa.table("study_rows", sa.column("min_epochs", sa.Integer), sa.column("keeps_epochs", sa.Boolean))
    op.execute(rows.update().where(rows.c.keeps_epochs).values(min_epochs=ALL))
    with op.batch_alter_table("study_rows") as changed:
        changed.alter_column("min_epochs", server_default=None)
        changed.drop_column("keeps_epochs")


def downgrade() -> None:
    """Back to all epochs or the budget's choice."""
    op.add_column("study_rows", sa.Column("keeps_epochs", sa.Boolean(), nullable=False, server_default=sa.false()))
    rows = sa.table("study_rows", sa.column("min_epochs", sa.Integer), sa.column("keeps_epochs", sa.Boolean))
    op.execute(rows.update().where(rows.c.min_epochs > 1).values(keeps_epochs=True))
    with op.batch_alter_table("study_rows") as changed:
        changed.alter_column("keeps_epochs", server_default=None)
        changed.drop_column("min_epochs")
