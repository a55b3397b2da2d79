"""The validation accuracy of each class in each epoch."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; epochs so far have none."""
    op.add_column("epoch_metrics", sa.Column("class_accuracy", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Remove it, with what it holds."""
    op.drop_column("epoch_metrics", "class_accuracy")
