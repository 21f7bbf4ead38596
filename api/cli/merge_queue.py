"""`orch merge-queue …`: who may land, who waits, what is frozen."""

import asyncio
import uuid
from typing import Annotated, Any

import typer

from api.cli.outcome import CliError, Exit
from api.cli.output import Output

app = typer.Typer(no_args_is_help=True, help="Who may land, who waits, what is frozen.")

Repo = Annotated[
    str | None, typer.Argument(metavar="[OWNER/REPOSITORY]", help="Not needed where only one is configured.")
]
Base = Annotated[str | None, typer.Option("--base", help="The base branch (default: what orch.toml says, else main).")]
Key = Annotated[str, typer.Argument(help="The waiting task's key, such as DEMO-1, or the beginning of it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
By = Annotated[str | None, typer.Option("--by", help="Who acts (default: the user of this system).")]
Reason = Annotated[str, typer.Option("--reason", help="Why; people read it.")]
NeededReason = Annotated[str, typer.Option("--reason", help="Why; everybody who waits reads it.")]
Cause = Annotated[str, typer.Option("--cause", help="Which cause, as `show` names it.")]
PriorityName = Annotated[str, typer.Option("--priority", help="urgent, high, medium, low or none.")]


@app.command()
def show(repository: Repo = None, *, base: Base = None, as_json: Json = False) -> None:
    """Show one merge queue: holder, phase, who waits in which order, what is frozen and who may lift it."""
    from api.cli import connect, queues, tables

    environment = connect.stack_environment()
    found = asyncio.run(queues.show(environment, queues.find_repository(environment, repository, base)))
    output = Output(as_json=as_json)
    output.data(found, tables.merge_queue(found))
    if found["note"]:
        output.note(found["note"])


@app.command()
def freeze(
    repository: Repo = None, *, reason: NeededReason, base: Base = None, by: By = None, as_json: Json = False
) -> None:
    """Let nobody land until `unfreeze`; holds without a worker, and for whoever holds the lease now."""
    from api.cli import acts, connect, queues, wording

    environment = connect.stack_environment()
    found = queues.find_repository(environment, repository, base)
    answer = asyncio.run(queues.freeze(environment, found, reason=reason, actor=acts.operator(by)))
    _said(Output(as_json=as_json), answer, f"{answer['queue']}: frozen by {wording.clean(answer['by'])}")


@app.command()
def unfreeze(
    repository: Repo = None,
    *,
    cause: Cause = "operator",
    reason: Reason = "",
    base: Base = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Lift one cause; the queue grants again once none stands."""
    from api.cli import acts, connect, queues, wording

    environment = connect.stack_environment()
    found = queues.find_repository(environment, repository, base)
    actor = acts.operator(by)
    answer = asyncio.run(queues.unfreeze(environment, found, cause=cause, reason=reason, actor=actor))
    still = f"; still frozen: {', '.join(answer['still'])}" if answer["still"] else ""
    _said(Output(as_json=as_json), answer, f"{answer['queue']}: {cause} lifted by {wording.clean(actor)}{still}")


@app.command("pass")
def pass_(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> None:
    """Let one waiting task through the causes that stand now; the full gate applies to it."""
    _tell("grant_pass", key, reason=reason, by=by, as_json=as_json)


@app.command()
def bump(
    key: Key, *, priority: PriorityName = "urgent", reason: Reason = "", by: By = None, as_json: Json = False
) -> None:
    """Give a waiting task another priority: it overtakes who waits, never the holder."""
    from workflows.model import Priority

    if priority not in set(Priority):
        raise CliError(Exit.USAGE, f"there is no priority {priority}", f"priorities: {', '.join(Priority)}")
    _tell("bump", key, reason=reason, by=by, as_json=as_json, priority=priority)


@app.command()
def drop(key: Key, *, reason: Reason = "", by: By = None, as_json: Json = False) -> None:
    """Take a waiting task out of the queue; it asks a person, and `orch task retry` queues it again."""
    _tell("drop", key, reason=reason, by=by, as_json=as_json)


def _tell(update: str, key: str, *, reason: str, by: str | None, as_json: bool, priority: str | None = None) -> None:
    from api.cli import acts, connect, queues, wording
    from workflows.interface import QueueCommand

    environment, actor = connect.stack_environment(), acts.operator(by)
    act = "pass" if update == "grant_pass" else update

    async def tell() -> dict[str, Any]:
        row = await acts.running(environment, act, key)
        task = str(row["task"])
        repository = queues.find_repository(environment, str(row["repo"]), None)
        command = QueueCommand.model_validate(
            {"task": task, "by": actor, "reason": reason, "priority": priority, "act_id": str(uuid.uuid4())}
        )
        look = f"orch merge-queue show {repository}"
        said = await acts.update(
            environment,
            queues.queue_of(repository),
            update,
            command,
            what=f"the {act} of {task}",
            look=look,
            gone=(f"{queues.queue_of(repository)} has ended: {task} does not wait in it", wording.why(row)),
        )
        return {
            "act_id": command.act_id, "task": task, "queue": queues.queue_of(repository), "act": act,
            "actor": actor, "reason": reason, "answer": said,
        }  # fmt: skip

    answer = asyncio.run(tell())
    Output(as_json=as_json).data(answer, wording.clean(answer["answer"]))


def _said(output: Output, answer: dict[str, Any], sentence: str) -> None:
    output.data(answer, sentence)
    if answer["note"]:
        output.note(answer["note"])
