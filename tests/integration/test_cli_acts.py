"""Decisions by the command line: on record first, bound to the digest, counting while Temporal is away."""

import json

import asyncpg
import pytest

from api.cli import acts
from api.cli.outcome import CliError, Exit
from tests.integration.conftest import Postgres

DIGEST = "3f2a00000000"


@pytest.fixture
async def environment(pool: asyncpg.Pool, postgres: Postgres) -> dict[str, str]:
    """PAY-7 asks for a decision, PAY-8 works, PAY-9 has ended; nobody answers as Temporal."""
    await pool.execute("TRUNCATE operator_acts, transitions")
    for key, digest, ended in (("PAY-7", DIGEST, None), ("PAY-8", "", None), ("PAY-9", "", "now()")):
        await pool.execute(
            f"""
            INSERT INTO tasks (task, generation, project, item_id, title, repo, branch, start_activity, stage, round,
                               status, waiting_on, waiting_reason, waiting_since, needs_human, spec_digest,
                               started_at, updated_at, ended_at, outcome)
            VALUES ($1, 1, 'PAY', gen_random_uuid(), 'Round totals', 'acme/payments', 'task/' || $1, $1, 'analysis', 1,
                    'waiting', 'person', 'decide', now(), true, $2, now(), now(), {ended or "NULL"}, '')
            """,
            key,
            digest,
        )
    return {"ORCH_DATABASE_URL": postgres.url, "TEMPORAL_ADDRESS": "127.0.0.1:1", "TEMPORAL_NAMESPACE": "orch"}


async def rows(pool: asyncpg.Pool) -> list[dict[str, object]]:
    """The acts on record."""
    return [dict(row) for row in await pool.fetch("SELECT act, actor, digest, reason, via FROM operator_acts")]


async def decide(
    environment: dict[str, str], key: str, act: str = "approve", digest: str | None = None
) -> dict[str, object]:
    """Decide as ann."""
    return await acts.decide(environment, act, key, digest=digest, reason="fine", actor="ann")


async def test_a_decision_counts_while_temporal_is_away(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """The row is there with the digest that was asked about, and the answer says that it takes effect later."""
    answer = await decide(environment, "pay-7")
    assert await rows(pool) == [{"act": "approve", "actor": "ann", "digest": DIGEST, "reason": "fine", "via": "cli"}]
    assert answer["told"] is False
    assert "it counts" in str(answer["note"])
    json.dumps(answer)


async def test_the_same_decision_again_makes_no_second_row(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """Repeating an approval answers with the first one, whoever gave it."""
    first = await decide(environment, "PAY-7")
    again = await decide(environment, "PAY-7")
    assert again["repeated"] is True
    assert again["act_id"] == first["act_id"]
    assert len(await rows(pool)) == 1


async def test_the_opposite_of_what_is_decided_is_a_conflict(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """A rejection after an approval of the same spec is refused: the earliest counts."""
    await decide(environment, "PAY-7")
    with pytest.raises(CliError) as caught:
        await decide(environment, "PAY-7", "reject")
    assert caught.value.exit_code is Exit.CONFLICT
    assert len(await rows(pool)) == 1


@pytest.mark.parametrize(
    ("key", "digest", "code"),
    [
        ("PAY-7", "0ld", Exit.CONFLICT),
        ("PAY-8", None, Exit.CONFLICT),
        ("PAY-9", None, Exit.CONFLICT),
        ("X-1", None, Exit.NOT_FOUND),
    ],
)
async def test_what_cannot_be_decided_leaves_no_row(
    environment: dict[str, str], pool: asyncpg.Pool, key: str, digest: str | None, code: Exit
) -> None:
    """An old digest, a task that asks nothing, an ended task and an unknown one are refused with a way to mend it."""
    with pytest.raises(CliError) as caught:
        await decide(environment, key, digest=digest)
    assert caught.value.exit_code is code
    assert caught.value.hint
    assert await rows(pool) == []


async def test_a_spec_that_changes_in_between_is_not_approved(environment: dict[str, str], pool: asyncpg.Pool) -> None:
    """The row is inserted only if exactly this digest is still asked about at that moment."""
    await pool.execute("UPDATE tasks SET spec_digest = 'newer' WHERE task = 'PAY-7'")
    with pytest.raises(CliError, match="newer"):
        await decide(environment, "PAY-7", digest=DIGEST)
    assert await rows(pool) == []


async def test_a_retry_without_temporal_is_unreachable(environment: dict[str, str]) -> None:
    """A retry is an update: where Temporal does not answer it fails with 7 and changes nothing."""
    with pytest.raises(CliError) as caught:
        await acts.retry(environment, "PAY-7", reason="", actor="ann")
    assert caught.value.exit_code is Exit.UNREACHABLE


async def test_a_retry_of_an_ended_task_is_a_conflict(environment: dict[str, str]) -> None:
    """Nothing is sent for a task that has ended."""
    with pytest.raises(CliError) as caught:
        await acts.retry(environment, "PAY-9", reason="", actor="ann")
    assert caught.value.exit_code is Exit.CONFLICT
