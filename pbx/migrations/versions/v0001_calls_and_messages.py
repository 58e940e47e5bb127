"""Calls with their legs and timelines, voicemail messages, and the epochs of workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "calls",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("caller_number", sa.Text, nullable=False),
        sa.Column("caller_name", sa.Text, nullable=False),
        sa.Column("dialled", sa.Text, nullable=False),
        sa.Column("plan_version", sa.Text, nullable=False),
        sa.Column("started_at", time, nullable=False),
        sa.Column("answered_at", time),
        sa.Column("ended_at", time),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Integer, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("timeline", sa.JSON, nullable=False),
    )
    op.create_index("calls_by_time", "calls", ["started_at", "id"])
    op.create_index("calls_by_tenant", "calls", ["tenant", "started_at", "id"])
    op.create_table(
        "legs",
        sa.Column("call_id", sa.Text, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", time),
        sa.Column("ringing_at", time),
        sa.Column("answered_at", time),
        sa.Column("ended_at", time),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("cause", sa.Integer, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("box", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("caller_number", sa.Text, nullable=False),
        sa.Column("caller_name", sa.Text, nullable=False),
        sa.Column("recorded_at", time, nullable=False),
        sa.Column("duration_ms", sa.BigInteger, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("heard_at", time),
        sa.Column("deleted_at", time),
    )
    in_boxes = sa.text("deleted_at IS NULL")
    op.create_index(
        "messages_in_boxes", "messages", ["tenant", "box", "heard_at"],
        sqlite_where=in_boxes, postgresql_where=in_boxes,
    )
    op.create_table(
        "workers",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
