"""The merge gate's tables: freezes of lease queues.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
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
    "ALTER TABLE tasks ADD COLUMN paused_since timestamptz, ADD COLUMN paused_reason text NOT NULL DEFAULT ''",
    # The generation an act is meant for: no later one takes it.
    "ALTER TABLE operator_acts ADD COLUMN generation integer, ADD COLUMN settled_at timestamptz",
    "UPDATE operator_acts SET outcome = 'taken' WHERE outcome = '' AND act NOT IN ('approve', 'reject')",
    "CREATE INDEX operator_acts_open ON operator_acts (task, generation) WHERE outcome = ''",
    "ALTER TABLE intake_gaps ADD COLUMN asked_at timestamptz, ADD COLUMN covered text[] NOT NULL DEFAULT '{}'",
    """
    ALTER TABLE deployments
        ADD COLUMN kind text NOT NULL DEFAULT 'deploy' CHECK (kind IN ('deploy', 'rollback')),
        DROP CONSTRAINT deployments_status_check,
        ADD CONSTRAINT deployments_status_check CHECK (status IN ('started', 'succeeded', 'failed', 'lost'))
    """,
    "ALTER TABLE merge_landings ADD COLUMN queue text NOT NULL DEFAULT ''",
    "ALTER TABLE merge_landings ADD COLUMN landed_sha text NOT NULL DEFAULT ''",
    "CREATE INDEX merge_landings_landed ON merge_landings (queue, settled_at) WHERE status = 'landed'",
    "ALTER TABLE tasks ADD COLUMN merge_gate text NOT NULL DEFAULT ''",
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
    for statement in TABLES:
        op.execute(statement)
