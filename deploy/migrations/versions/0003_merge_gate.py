"""The merge gate's tables: freezes of lease queues.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE freezes (
        id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue         text NOT NULL,
        cause         text NOT NULL,
        reason        text NOT NULL,
        by_whom       text NOT NULL,
        since         timestamptz NOT NULL DEFAULT now(),
        lifted_at     timestamptz,
        lifted_by     text NOT NULL DEFAULT '',
        lifted_reason text NOT NULL DEFAULT ''
    )
    """,
    "CREATE UNIQUE INDEX freezes_standing ON freezes (queue, cause) WHERE lifted_at IS NULL",
    """
    ALTER TABLE agent_runs
        ADD COLUMN cause text NOT NULL DEFAULT '',
        ADD COLUMN resumed boolean NOT NULL DEFAULT false,
        ADD COLUMN log text NOT NULL DEFAULT '',
        ADD COLUMN models jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN cache_creation_1h_tokens bigint NOT NULL DEFAULT 0,
        ADD COLUMN session_cost_usd numeric(12, 6)
    """,
)


def upgrade() -> None:
    """Add what the merge gate keeps."""
    for statement in STATEMENTS:
        op.execute(statement)
