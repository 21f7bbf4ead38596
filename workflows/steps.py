"""What happens in each stage before anything lands, in pipeline order.

Each function is one round of one stage: it works, asks the gate, and says where that leads.
"""

from datetime import timedelta

from workflows import gating, working
from workflows.contracts import items, pull_requests, workspaces
from workflows.model import GateOutcome, GateResult, Stage, TestRun
from workflows.names import PLANE_QUEUE, host_work_queue
from workflows.stages import Gate, artifact_path
from workflows.state import Ask, Counter, Move, RoundWork
from workflows.task_run import TaskRun
from workflows.verdicts import AgentRun, Claim, VerdictOutcome

TEST_LIMIT = timedelta(hours=1)


async def analysis(run: TaskRun) -> Move:
    """The analyst writes the spec; a person decides on exactly that spec."""
    elsewhere = await _author(run)
    if elsewhere is not None:
        return elsewhere
    ask = await _ask(run)
    decided = await gating.ask(
        run,
        lambda: gating.question(
            run, Gate.SPEC_DECIDED, digest=ask.digest, artifact_path=ask.spec_path, ask_effect=ask.effect
        ),
        PLANE_QUEUE,
    )
    run.update(ask=None)  # decided: from here on an answer is refused with words
    await run.take_answers()  # one given in that very moment is on record before everybody is told what counted
    state = run.next_step()
    await run.call(
        items.settle_decision,
        items.SettleDecision(ref=state.ref, item=state.item, digest=ask.digest, ask_effect=ask.effect),
        queue=PLANE_QUEUE,
        summary="tell the decision, move the item back to In Progress",
    )
    return _by(run, decided)


async def _ask(run: TaskRun) -> Ask:
    """Ask a person, anew after every pause: the item may have been moved meanwhile."""
    work = run.state.work
    run.update(work=work.model_copy(update={"asked": work.asked + 1}))
    state = run.next_step()
    ask = Ask(
        digest=work.digest,
        spec_path=artifact_path(state.key, run.spec) or "",
        head_sha=work.published,
        effect=f"ask-{state.work.asked}",
    )
    run.update(ask=ask)
    await run.call(
        items.ask_decision,
        items.AskDecision(
            ref=state.ref,
            effect=ask.effect,
            item=state.item,
            digest=ask.digest,
            spec_path=ask.spec_path,
            head_sha=ask.head_sha,
            repository=state.project.repository,
        ),
        queue=PLANE_QUEUE,
        summary=f"ask for a decision on {ask.digest}",
    )
    run.say(f"asked a person to decide on spec {ask.digest}", sha=ask.head_sha)
    await run.show_on_item()
    return ask


async def architecture(run: TaskRun) -> Move:
    """The architect decides how, in a file with the required headings."""
    elsewhere = await _author(run)
    if elsewhere is not None:
        return elsewhere
    path = artifact_path(run.state.key, run.spec) or ""
    result = await gating.ask(
        run, lambda: gating.question(run, Gate.DESIGN_PRESENT, artifact_path=path, headings=run.spec.headings)
    )
    return _by(run, result, Counter.FAILURES)


async def development(run: TaskRun) -> Move:
    """The developer changes the code; CI judges exactly the head."""
    elsewhere = await _author(run)
    if elsewhere is not None:
        return elsewhere
    state = run.next_step()
    pull = await run.call(
        pull_requests.ensure_pull_request,
        pull_requests.EnsurePullRequest(
            ref=state.ref,
            repository=state.project.repository,
            branch=state.branch,
            title=f"{state.key}: {state.item.title}",
            body=f"Plane item: {state.item.url}",
        ),
        summary="open the pull request",
    )
    run.update(pull=pull)
    run.say(f"pull request #{pull.number} is open", sha=state.head_sha)
    while True:
        result = await gating.ask(
            run, lambda: gating.question(run, Gate.CI_GREEN, baseline_sha=run.state.work.baseline)
        )
        if "head moved" not in result.failing:
            break
        # Whoever pushed helps to develop: CI judges the new head.
        run.update(head_sha=result.sha)
    spends = Counter.NO_EVIDENCE if "no evidence" in result.failing else Counter.CI_ROUNDS
    return _by(run, result, spends)


async def review(run: TaskRun) -> Move:
    """The reviewer judges the head; the reviewer account says so on the pull request."""
    claim = await judge(run)
    if isinstance(claim, Move):
        return claim
    state = run.next_step()
    assert state.pull is not None
    await run.call(
        pull_requests.post_review,
        pull_requests.PostReview(
            ref=state.ref,
            effect=f"review-{claim.sha[:10]}",
            repository=state.project.repository,
            number=state.pull.number,
            sha=claim.sha,
            approve=claim.outcome is VerdictOutcome.PASS,
            body=state.work.findings,
        ),
        summary=f"review: {claim.outcome}",
    )
    result = await gating.ask(run, lambda: gating.question(run, Gate.REVIEW_PASSED, claim=claim))
    return _by(run, result, Counter.REVIEW_ROUNDS, state.work.findings)


async def testing(run: TaskRun) -> Move:
    """We run the tests; the tester judges them and what they leave untested."""
    tests = run.state.work.tests
    if tests is None or tests.sha != run.state.head_sha:
        tests = await run_tests(run, run.state.head_sha)
        run.update(work=run.state.work.model_copy(update={"tests": tests}))
    claim = await judge(run, **{"tests.txt": tests.tail})
    if isinstance(claim, Move):
        return claim
    result = await gating.ask(run, lambda: gating.question(run, Gate.TESTS_PASSED, claim=claim, test_run=tests))
    return _by(run, result, Counter.REVIEW_ROUNDS, f"{run.state.work.findings}\n\n{tests.tail}")


async def run_tests(run: TaskRun, sha: str) -> TestRun:
    """Run the project's tests on a clean checkout of `sha`."""
    state = run.next_step()
    tests = await run.call(
        workspaces.run_tests,
        workspaces.RunTests(ref=state.ref, repository=state.project.repository, sha=sha, command=state.policy.test),
        queue=host_work_queue(state.host),
        summary=f"tests on {sha[:10]}",
        limit=TEST_LIMIT,
    )
    run.say(f"tests {'pass' if tests.passed else 'fail'} on {sha[:10]}", sha=sha)
    return tests


async def comment(run: TaskRun, agent: AgentRun, *, artifacts: tuple[str, ...] = ()) -> None:
    """Say on the item what a stage came to."""
    state = run.next_step()
    usage, verdict = agent.usage, agent.verdict
    cost = "cost unknown" if agent.cost_usd is None else f"${agent.cost_usd:.4f} ({agent.cost_source})"
    await run.call(
        items.post_comment,
        items.PostComment(
            ref=state.ref,
            effect=f"finish-{agent.binding.head_sha[:10]}",
            item=state.item,
            repository=state.project.repository,
            title=f"{state.stage}, round {state.round}: {verdict.outcome if verdict else agent.outcome}",
            body=verdict.summary if verdict else agent.reason,
            footer=(f"{usage.full_input} tokens in ({usage.cache_read} from cache), {usage.output} out, {cost}"),
            artifacts=artifacts,
            sha=state.head_sha or agent.binding.head_sha,
            pull=state.pull.number if state.pull else None,
        ),
        queue=PLANE_QUEUE,
        summary=f"finish comment: {state.stage}",
    )


async def _author(run: TaskRun) -> Move | None:
    """Let a role write on the branch, once a round; answer where it leads if nothing usable was pushed."""
    if run.state.work.published:
        return None
    path = artifact_path(run.state.key, run.spec) or ""
    baseline = run.state.head_sha
    workspace = await working.prepare(run)
    agent, problem = await working.agent(run, workspace, path)
    verdict = agent.verdict
    if problem or verdict is None:
        return _again(run, problem or "no verdict")
    if verdict.outcome is not VerdictOutcome.PASS:
        await comment(run, agent)
        return _again(run, f"{verdict.outcome}: {verdict.summary}")
    published = await _publish(run, workspace, path)
    if published.outcome is not workspaces.Publish.PUSHED:
        nothing = published.outcome is workspaces.Publish.NOTHING_NEW
        spends = Counter.NO_EVIDENCE if nothing else Counter.FAILURES
        return _again(run, f"{published.outcome}: {published.reason}", spends)
    run.update(head_sha=published.head_sha)
    run.say(f"pushed {published.commits} commit(s) to {run.state.branch}", sha=published.head_sha)
    missing = _lacks(published.artifact)
    if missing:
        return _again(run, missing)
    await comment(run, agent, artifacts=(path,) if path else published.changed[:5])
    digest = published.artifact.digest if published.artifact else ""
    run.update(work=RoundWork(baseline=baseline, published=published.head_sha, digest=digest))
    return None


async def _publish(run: TaskRun, workspace: workspaces.Workspace, path: str) -> workspaces.Published:
    state = run.next_step()
    return await run.call(
        workspaces.publish_work,
        workspaces.PublishWork(
            ref=state.ref,
            repository=state.project.repository,
            workspace=workspace,
            branch=state.branch,
            artifact_path=path,
            headings=run.spec.headings,
        ),
        queue=host_work_queue(state.host),
        summary=f"push {state.branch}",
        limit=timedelta(minutes=10),
    )


async def judge(run: TaskRun, **data: str) -> Claim | Move:
    """Let a role judge the head without changing it, once a round and head; answer what it claims."""
    known = run.state.work.claim
    if known is not None and known.sha == run.state.head_sha:
        return known
    workspace = await working.prepare(run)
    if workspace.head_sha != run.state.head_sha:
        run.say("someone else pushed to the task branch", sha=workspace.head_sha)
        run.update(head_sha=workspace.head_sha)
    agent, problem = await working.agent(run, workspace, **data)
    if problem or agent.verdict is None:
        return _again(run, problem or "no verdict")
    await comment(run, agent)
    claim = Claim(outcome=agent.verdict.outcome, sha=workspace.head_sha, summary=agent.verdict.summary)
    run.update(work=run.state.work.model_copy(update={"claim": claim, "findings": _findings(agent)}))
    return claim


def _lacks(artifact: workspaces.Artifact | None) -> str:
    if artifact is None:
        return ""
    if not artifact.digest:
        return f"{artifact.path} is missing on the branch"
    return f"{artifact.path} lacks the headings {', '.join(artifact.missing)}" if artifact.missing else ""


def _findings(agent: AgentRun) -> str:
    verdict = agent.verdict
    if verdict is None:
        return agent.reason
    lines = [f"- {found.severity}: {found.file}:{found.line or ''} {found.text}" for found in verdict.findings]
    return "\n".join([verdict.summary, *lines])


def _by(run: TaskRun, result: GateResult, spends: Counter | None = None, feedback: str = "") -> Move:
    """Where a gate's answer leads; a red spends what its stage says."""
    spec = run.spec
    if result.outcome is GateOutcome.GREEN:
        return Move(to=spec.green, reason=result.reason)
    if "head moved" in result.failing:
        run.update(head_sha=result.sha)
        return Move(to=Stage.REVIEW, reason=result.reason)
    facts = tuple(fact for fact in (result.reason, result.detail, feedback) if fact)
    return Move(to=spec.red or run.state.stage, reason=result.reason, feedback=facts, spends=spends)


def _again(run: TaskRun, problem: str, spends: Counter = Counter.FAILURES) -> Move:
    return Move(to=run.state.stage, reason=problem, feedback=(problem,), spends=spends)
