"""What studies ask for beside their rows: ensembles, averages of weights, robustness."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make their table; studies so far have asked for none."""
    op.create_table(
        "study_additions",
        sa.Column("study_id", BIG, nullable=False),
        sa.Column("key", sa.String(length=220), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("measurement", BIG, nullable=True),
        sa.Column("best_experiment", BIG, nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("experiment_ids", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_study_additions_study_id_studies"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("study_id", "key", name=op.f("pk_study_additions")),
    )


def downgrade() -> None:
    """Remove it, with what it holds."""
    op.drop_table("study_additions")
