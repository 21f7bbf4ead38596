"""Intake: what naming, the loop breaker, echoes and `orch webhooks` look up; when deliveries were refused.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = (
    "CREATE INDEX tasks_open_by_branch ON tasks (repo, branch) WHERE ended_at IS NULL",
    "CREATE INDEX tasks_open_by_head ON tasks (repo, head_sha) WHERE ended_at IS NULL",
    "CREATE INDEX webhook_deliveries_by_status ON webhook_deliveries (status, settled_at)",
    "CREATE INDEX webhook_deliveries_by_task ON webhook_deliveries (task, last_received_at)",
    "CREATE INDEX effects_by_kind ON effects (kind, opened_at)",
    """
    CREATE TABLE intake_gaps (
        source      text NOT NULL CHECK (source IN ('plane', 'gitea')),
        since       timestamptz NOT NULL,
        until       timestamptz NOT NULL,
        PRIMARY KEY (source, since)
    )
    """,
)


def upgrade() -> None:
    """Create the indexes and the table."""
    for statement in TABLES:
        op.execute(statement)
