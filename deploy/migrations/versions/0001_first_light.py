"""The tables of the first complete path: inbox, tasks, effects, leases, landings, outbox.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE webhook_deliveries (
        id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source          text NOT NULL CHECK (source IN ('plane', 'gitea')),
        body_sha256     bytea NOT NULL,
        body            bytea NOT NULL,
        headers         jsonb NOT NULL,
        event           text NOT NULL,
        delivery_id     text NOT NULL,
        received_at     timestamptz NOT NULL DEFAULT now(),
        times_received  integer NOT NULL DEFAULT 1,
        last_received_at timestamptz NOT NULL DEFAULT now(),
        status          text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'forwarded', 'ignored', 'dead')),
        reason          text NOT NULL DEFAULT '',
        task            text,
        attempts        integer NOT NULL DEFAULT 0,
        next_attempt_at timestamptz NOT NULL DEFAULT now(),
        leased_until    timestamptz,
        settled_at      timestamptz,
        UNIQUE (source, body_sha256)
    )
    """,
    "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'new'",
    """
    CREATE TABLE items (
        item_id     uuid PRIMARY KEY,
        project_id  uuid NOT NULL,
        task        text NOT NULL,
        seen_at     timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE tasks (
        task            text NOT NULL,
        generation      integer NOT NULL,
        project         text NOT NULL,
        item_id         uuid NOT NULL,
        title           text NOT NULL,
        repo            text NOT NULL,
        branch          text NOT NULL,
        start_activity  text NOT NULL,
        seen_activity   text NOT NULL DEFAULT '',
        stage           text NOT NULL,
        round           integer NOT NULL,
        status          text NOT NULL,
        waiting_on      text NOT NULL DEFAULT '',
        waiting_reason  text NOT NULL DEFAULT '',
        waiting_since   timestamptz,
        next_check_at   timestamptz,
        wait_ends_at    timestamptz,
        needs_human     boolean NOT NULL DEFAULT false,
        spec_digest     text NOT NULL DEFAULT '',
        head_sha        text NOT NULL DEFAULT '',
        pull_request    integer,
        pull_request_url text NOT NULL DEFAULT '',
        item_url        text NOT NULL DEFAULT '',
        landed_sha      text NOT NULL DEFAULT '',
        deployed_sha    text NOT NULL DEFAULT '',
        cost_usd        numeric(12, 6),
        lines_written   integer NOT NULL DEFAULT 0,
        started_at      timestamptz NOT NULL,
        updated_at      timestamptz NOT NULL,
        ended_at        timestamptz,
        outcome         text NOT NULL DEFAULT '',
        PRIMARY KEY (task, generation),
        UNIQUE (task, start_activity)
    )
    """,
    "CREATE UNIQUE INDEX tasks_one_open_generation ON tasks (task) WHERE ended_at IS NULL",
    """
    CREATE TABLE transitions (
        task        text NOT NULL,
        generation  integer NOT NULL,
        n           integer NOT NULL,
        at          timestamptz NOT NULL,
        stage       text NOT NULL,
        round       integer NOT NULL,
        text        text NOT NULL,
        sha         text NOT NULL DEFAULT '',
        source      text NOT NULL DEFAULT '',
        PRIMARY KEY (task, generation, n)
    )
    """,
    """
    CREATE TABLE gate_results (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        task        text NOT NULL,
        generation  integer NOT NULL,
        stage       text NOT NULL,
        round       integer NOT NULL,
        gate        text NOT NULL,
        outcome     text NOT NULL,
        reason      text NOT NULL,
        sha         text NOT NULL,
        fingerprint text NOT NULL,
        links       jsonb NOT NULL DEFAULT '[]',
        first_at    timestamptz NOT NULL DEFAULT now(),
        last_at     timestamptz NOT NULL DEFAULT now(),
        looks       integer NOT NULL DEFAULT 1,
        UNIQUE (task, generation, stage, round, gate, outcome, sha, fingerprint)
    )
    """,
    """
    CREATE TABLE agent_runs (
        task            text NOT NULL,
        generation      integer NOT NULL,
        stage           text NOT NULL,
        round           integer NOT NULL,
        attempt         integer NOT NULL,
        session_id      text NOT NULL,
        role            text NOT NULL,
        runner          text NOT NULL,
        host            text NOT NULL,
        outcome         text NOT NULL DEFAULT 'running',
        verdict         jsonb,
        reason          text NOT NULL DEFAULT '',
        head_sha        text NOT NULL DEFAULT '',
        input_tokens    bigint NOT NULL DEFAULT 0,
        cache_read_tokens bigint NOT NULL DEFAULT 0,
        cache_creation_tokens bigint NOT NULL DEFAULT 0,
        output_tokens   bigint NOT NULL DEFAULT 0,
        cost_usd        numeric(12, 6),
        cost_source     text NOT NULL DEFAULT 'unknown',
        started_at      timestamptz NOT NULL DEFAULT now(),
        ended_at        timestamptz,
        PRIMARY KEY (task, generation, stage, round, attempt)
    )
    """,
    """
    CREATE TABLE fences (
        task        text PRIMARY KEY,
        generation  integer NOT NULL,
        step        integer NOT NULL,
        attempt     integer NOT NULL,
        stage       text NOT NULL,
        taken_at    timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE pushed_shas (
        repo        text NOT NULL,
        sha         text NOT NULL,
        branch      text NOT NULL,
        task        text NOT NULL,
        generation  integer NOT NULL,
        step        integer NOT NULL,
        attempt     integer NOT NULL,
        pushed_at   timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (repo, sha, branch)
    )
    """,
    """
    CREATE TABLE effects (
        intent_key  text PRIMARY KEY,
        kind        text NOT NULL,
        status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done', 'abandoned')),
        reference   text NOT NULL DEFAULT '',
        detail      jsonb NOT NULL DEFAULT '{}',
        opened_at   timestamptz NOT NULL DEFAULT now(),
        settled_at  timestamptz
    )
    """,
    "CREATE SEQUENCE lease_epochs",
    """
    CREATE TABLE leases (
        queue       text PRIMARY KEY,
        epoch       bigint NOT NULL,
        holder      text NOT NULL,
        generation  integer NOT NULL,
        granted_at  timestamptz NOT NULL DEFAULT now(),
        released_at timestamptz
    )
    """,
    """
    CREATE TABLE merge_landings (
        repo        text NOT NULL,
        candidate   text NOT NULL,
        epoch       bigint NOT NULL,
        task        text NOT NULL,
        generation  integer NOT NULL,
        base_sha    text NOT NULL,
        tree        text NOT NULL,
        status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'landed', 'abandoned')),
        reason      text NOT NULL DEFAULT '',
        opened_at   timestamptz NOT NULL DEFAULT now(),
        settled_at  timestamptz,
        PRIMARY KEY (repo, candidate, epoch)
    )
    """,
    """
    CREATE TABLE deployments (
        intent_key  text PRIMARY KEY,
        task        text NOT NULL,
        generation  integer NOT NULL,
        repo        text NOT NULL,
        environment text NOT NULL,
        sha         text NOT NULL,
        previous_sha text NOT NULL DEFAULT '',
        status      text NOT NULL DEFAULT 'started' CHECK (status IN ('started', 'succeeded', 'failed')),
        output_tail text NOT NULL DEFAULT '',
        started_at  timestamptz NOT NULL DEFAULT now(),
        ended_at    timestamptz
    )
    """,
    """
    CREATE TABLE notifications (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        intent_key  text NOT NULL UNIQUE,
        task        text NOT NULL,
        text        text NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        attempts    integer NOT NULL DEFAULT 0,
        next_attempt_at timestamptz NOT NULL DEFAULT now(),
        last_error  text NOT NULL DEFAULT '',
        message_id  bigint,
        sent_at     timestamptz
    )
    """,
    "CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE sent_at IS NULL",
    """
    CREATE TABLE reconcile_watermarks (
        project       text PRIMARY KEY,
        changed_until timestamptz NOT NULL,
        seen          jsonb NOT NULL DEFAULT '{}',
        passed_at     timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE operator_acts (
        act_id      text PRIMARY KEY,
        task        text NOT NULL,
        act         text NOT NULL,
        actor       text NOT NULL,
        digest      text NOT NULL DEFAULT '',
        reason      text NOT NULL DEFAULT '',
        via         text NOT NULL,
        at          timestamptz NOT NULL DEFAULT now(),
        outcome     text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX operator_acts_by_task ON operator_acts (task, at)",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in TABLES:
        op.execute(statement)
