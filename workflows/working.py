"""Letting an agent work: a fresh clone, one run, its verdict and what it cost."""

from datetime import timedelta

from temporalio import workflow

from workflows import names
from workflows.contracts import workspaces
from workflows.task_run import TaskRun
from workflows.usage import added
from workflows.verdicts import AgentRun, Binding, refusal

AGENT_LIMIT = timedelta(hours=4)


async def prepare(run: TaskRun) -> workspaces.Workspace:
    """A fresh clone of the task branch for this round."""
    state = run.next_step()
    return await run.call(
        workspaces.prepare_workspace,
        workspaces.PrepareWorkspace(ref=state.ref, repository=state.project.repository, branch=state.branch),
        queue=names.host_work_queue(state.host),
        summary=f"clone {state.branch}",
        limit=timedelta(minutes=15),
    )


async def agent(
    run: TaskRun, workspace: workspaces.Workspace, artifact_path: str = "", **data: str
) -> tuple[AgentRun, str | None]:
    """Run this stage's role; answer the run and why its verdict may not be used, if it may not."""
    state, spec = run.next_step(), run.spec
    binding = Binding(ref=state.ref, head_sha=workspace.head_sha, nonce=workflow.uuid4().hex)
    run.say(f"{spec.role} works", sha=workspace.head_sha)
    await run.record()
    ended = await run.call(
        workspaces.run_agent,
        workspaces.RunAgent(
            ref=state.ref,
            role=spec.role,
            runner=state.policy.runner_for(spec.role),
            workspace=workspace,
            branch=state.branch,
            nonce=binding.nonce,
            session_id=str(workflow.uuid4()),
            artifact_path=artifact_path,
            headings=spec.headings,
            terms=state.policy.terms_for(spec.role),
            data={
                "item.md": f"# {state.item.title}\n\n{state.item.description_html}",
                "feedback.md": "\n\n".join(state.feedback),
                **data,
            },
        ),
        queue=names.host_agent_queue(state.host),
        summary=f"{spec.role}, round {state.round}",
        limit=AGENT_LIMIT,
    )
    _account(run, ended)
    problem = refusal(ended, binding)
    said = ended.verdict.outcome if ended.verdict and problem is None else f"no verdict: {problem}"
    run.say(f"{spec.role}: {said}", sha=workspace.head_sha)
    return ended, problem


def _account(run: TaskRun, ended: AgentRun) -> None:
    """Attempts that were cut off were paid for too."""
    state, earlier = run.state, ended.earlier
    usage = added(ended.usage, earlier.usage)
    run.update(
        cost_usd=round(state.cost_usd + (ended.cost_usd or 0.0) + earlier.cost_usd, 6),
        cost_complete=state.cost_complete and ended.cost_usd is not None and earlier.complete,
        tokens_in=state.tokens_in + usage.full_input,
        tokens_cached=state.tokens_cached + usage.cache_read,
        tokens_out=state.tokens_out + usage.output,
    )
