"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them all."""
    op.create_table(
        "api_keys",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_api_keys_key_sha256")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
    )
    op.create_table(
        "experiments",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failed_attempts", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("owner", sa.String(length=100), nullable=True),
        sa.Column("reproduces", BIG, nullable=True),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("dataset_fingerprint", sa.String(length=100), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("test", sa.JSON(), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=True),
        sa.Column("verdict", sa.JSON(), nullable=True),
        sa.Column("environment", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["reproduces"], ["experiments.id"], name=op.f("fk_experiments_reproduces_experiments"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_experiments_created_at_id"), "experiments", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_experiments_dataset_created_at_id"), "experiments", ["dataset", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_experiments_model_created_at_id"), "experiments", ["model", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_experiments_name_id"), "experiments", ["name", "id"], unique=False)
    op.create_index(op.f("ix_experiments_owner_status"), "experiments", ["owner", "status"], unique=False)
    op.create_index(op.f("ix_experiments_reproduces"), "experiments", ["reproduces"], unique=False)
    op.create_index(op.f("ix_experiments_spec_digest"), "experiments", ["spec_digest"], unique=False)
    op.create_index(
        op.f("ix_experiments_status_created_at_id"), "experiments", ["status", "created_at", "id"], unique=False
    )

    op.create_table(
        "probes",
        sa.Column("id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("claimed_by", sa.String(length=200), nullable=True),
        sa.Column("heartbeat", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_probes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_probes_status_id"), "probes", ["status", "id"], unique=False)

    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=100), nullable=False),
        sa.Column("heartbeat", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "artifacts",
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(length=300), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("num_bytes", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_artifacts_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "kind", "epoch", name=op.f("pk_artifacts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "epoch_metrics",
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("train_loss", sa.Double(), nullable=True),
        sa.Column("train_accuracy", sa.Double(), nullable=True),
        sa.Column("val_loss", sa.Double(), nullable=True),
        sa.Column("val_accuracy", sa.Double(), nullable=True),
        sa.Column("lr", sa.Double(), nullable=True),
        sa.Column("grad_norm", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("images_per_second", sa.Double(), nullable=True),
        sa.Column("peak_memory_mb", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_epoch_metrics_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "epoch", name=op.f("pk_epoch_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_events_experiment_id_experiments"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_experiment_id_id"), "events", ["experiment_id", "id"], unique=False)

    op.create_table(
        "experiment_tags",
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_tags_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "tag", name=op.f("pk_experiment_tags")),
    )
    op.create_index(
        op.f("ix_experiment_tags_tag_experiment_id"), "experiment_tags", ["tag", "experiment_id"], unique=False
    )

    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_idempotency_keys_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_experiment_id"), "idempotency_keys", ["experiment_id"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", BIG, nullable=False),
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("heartbeat", sa.Integer(), nullable=False),
        sa.Column("start_epoch", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("environment", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=op.f("fk_runs_experiment_id_experiments"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_experiment_id_attempt"), "runs", ["experiment_id", "attempt"], unique=True)
    op.create_index(op.f("ix_runs_status"), "runs", ["status"], unique=False)

    op.create_table(
        "summaries",
        sa.Column("experiment_id", BIG, nullable=False),
        sa.Column("series", sa.String(length=40), nullable=False),
        sa.Column("best", sa.Double(), nullable=True),
        sa.Column("best_epoch", sa.Integer(), nullable=True),
        sa.Column("last", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_summaries_experiment_id_experiments"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "series", name=op.f("pk_summaries")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_summaries_series_best_experiment_id"), "summaries", ["series", "best", "experiment_id"], unique=False
    )
    op.create_index(
        op.f("ix_summaries_series_last_experiment_id"), "summaries", ["series", "last", "experiment_id"], unique=False
    )


def downgrade() -> None:
    """Drop them all."""
    op.drop_index(op.f("ix_summaries_series_last_experiment_id"), table_name="summaries")
    op.drop_index(op.f("ix_summaries_series_best_experiment_id"), table_name="summaries")

    op.drop_table("summaries")
    op.drop_index(op.f("ix_runs_status"), table_name="runs")
    op.drop_index(op.f("ix_runs_experiment_id_attempt"), table_name="runs")

    op.drop_table("runs")
    op.drop_index(op.f("ix_idempotency_keys_experiment_id"), table_name="idempotency_keys")

    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_experiment_tags_tag_experiment_id"), table_name="experiment_tags")

    op.drop_table("experiment_tags")
    op.drop_index(op.f("ix_events_experiment_id_id"), table_name="events")

    op.drop_table("events")
    op.drop_table("epoch_metrics")
    op.drop_table("artifacts")
    op.drop_table("workers")
    op.drop_index(op.f("ix_probes_status_id"), table_name="probes")

    op.drop_table("probes")
    op.drop_index(op.f("ix_experiments_status_created_at_id"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_spec_digest"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_reproduces"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_owner_status"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_name_id"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_model_created_at_id"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_dataset_created_at_id"), table_name="experiments")
    op.drop_index(op.f("ix_experiments_created_at_id"), table_name="experiments")

    op.drop_table("experiments")
    op.drop_table("api_keys")
