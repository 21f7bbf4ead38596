"""Plane: whether a person started a task, asking for decisions, comments and states."""

from temporalio import activity

from activities.adapters.errors import NotFound
from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import Item as PlaneItem
from activities.adapters.plane_models import StateChange
from activities.adapters.store import GenerationRow, Store
from activities.decisions import Answers, Decisions
from activities.fencing import Fence
from activities.forge import Forge
from activities.markup import inline, to_html
from activities.plane_states import PlaneStates, after
from activities.projects import Projects
from activities.totals import table
from workflows.contracts import items as contract
from workflows.model import Done, Item, ItemState, Priority
from workflows.names import parse_task_key, task_branch
from workflows.projects import ProjectConfig, ProjectFacts


class Items:
    """Plane's side of a task. Runs on the rate-limited queue."""

    def __init__(self, plane: PlaneClient, forge: Forge, store: Store, projects: Projects, ui: str) -> None:
        self._plane = plane
        self._forge = forge
        self._store = store
        self._projects = projects
        self._ui = ui
        self._decisions = Decisions(plane, store)

    @activity.defn
    async def begin_generation(self, arg: contract.BeginGeneration) -> contract.Beginning:
        """Start only what a person moved to In Progress since the generation before."""
        project = self._projects.config.project_of(arg.key)
        if project is None:
            return _no(f"the project of {arg.key} is not configured in orch.toml")
        key = parse_task_key(arg.key)
        try:
            identifier = (await self._plane.get_project(project.plane_project_id)).identifier
            item = await self._plane.get_item_by_key(identifier, key.seq)
        except NotFound:
            return _no(f"Plane has no item {arg.key}")
        states = await PlaneStates.read(self._plane, project)
        if item.state != states.id_of(ItemState.IN_PROGRESS):
            return _no(f"the item is in {states.name_of(item.state)}")
        changes = await self._plane.state_changes(project.plane_project_id, item.id)
        last = await self._store.tasks.last_generation(arg.key)
        start = started_by_person(item, changes, states, project.bots, last)
        if start is None:
            lagging = not changes or changes[-1].new_state != item.state
            return contract.Beginning(
                start=contract.Start.NOT_YET_KNOWN if lagging else contract.Start.NOT_STARTED,
                reason="Plane has not recorded who moved the item" if lagging else "no person has started it anew",
            )
        return await self._open(arg.key, project, item, start, last)

    async def _open(
        self, key: str, project: ProjectConfig, item: PlaneItem, start: str, last: GenerationRow | None
    ) -> contract.Beginning:
        generation = 1 if last is None else last.generation + (1 if last.ended_at else 0)
        project_key = parse_task_key(key).project
        config = self._projects.config
        url = f"{config.plane_public_url.rstrip('/')}/{config.plane_workspace}/browse/{key}/"
        ours = Item(
            id=item.id,
            project_id=project.plane_project_id,
            key=key,
            title=item.name,
            description_html=item.description_html or "",
            url=url,
            priority=Priority(item.priority) if item.priority in set(Priority) else Priority.NONE,
        )
        await self._store.tasks.open_generation(
            {
                "task": key,
                "generation": generation,
                "project": project_key,
                "project_id": project.plane_project_id,
                "item_id": item.id,
                "title": item.name,
                "repo": str(project.repository),
                "branch": task_branch(key, generation),
                "start_activity": start,
                "item_url": url,
            }
        )
        return contract.Beginning(
            start=contract.Start.STARTED,
            reason=f"a person moved {key} to {project.states.in_progress}",
            generation=generation,
            step=await self._store.fences.last_step(key, generation),
            start_activity=start,
            item=ours,
            project=ProjectFacts(key=project_key, repository=project.repository, temporal_ui=self._ui),
        )

    @activity.defn
    async def ask_decision(self, arg: contract.AskDecision) -> Done:
        """Comment first, then the state: whoever sees the state can read what it is about."""
        fence = await Fence.take(self._store, arg.ref)
        urls = self._forge.urls(arg.repository)
        project = self._projects.of(arg.ref.key)
        names = project.states
        text = (
            f"### Decision needed: spec of {arg.ref.key}, round {arg.ref.round}\n\n"
            f"Read [{inline(arg.spec_path)}]({urls.file(arg.spec_path, arg.head_sha)}) "
            f"(digest `{arg.digest}`), then move this item to **{inline(names.approved)}** or "
            f"**{inline(names.rejected)}**, or run "
            f"`orch task approve {arg.ref.key} --digest {arg.digest}`."
        )
        await self._comment(fence, arg.item, f"{arg.effect}-comment", to_html(text))
        await self._write_state(fence, arg.item, arg.effect, ItemState.AWAITING_APPROVAL)
        return Done()

    @activity.defn
    async def settle_decision(self, arg: contract.SettleDecision) -> Done:
        """Say which answer counted and which came too late, then move the item back to work."""
        fence = await Fence.take(self._store, arg.ref)
        project = self._projects.of(arg.ref.key)
        answers = await self._decisions.read(arg.ref, arg.ask_effect, arg.item, project, arg.digest)
        await self._comment(fence, arg.item, "decision-comment", to_html(_told(arg.digest, answers)))
        await self._write_state(fence, arg.item, "back-to-work", ItemState.IN_PROGRESS)
        return Done()

    @activity.defn
    async def show_status(self, arg: contract.ShowStatus) -> Done:
        """One comment for each generation, edited in place; a deleted one is not written again."""
        fence = await Fence.take(self._store, arg.ref)
        intent = f"{arg.ref.key}/g{arg.ref.generation}/status-comment"
        html = to_html(f"**{inline(arg.headline)}**\n\n{arg.lines}")
        known = await self._store.effects.open(intent, "plane comment")
        await fence.check()
        if known.status == "done":
            try:
                await self._plane.update_comment(arg.item.project_id, arg.item.id, known.reference, html)
            except NotFound:
                return Done()
            return Done(reference=known.reference)
        comment = await self._plane.create_comment(arg.item.project_id, arg.item.id, html, external_id=intent)
        await self._store.effects.settle(intent, comment.id)
        return Done(reference=comment.id)

    @activity.defn
    async def post_comment(self, arg: contract.PostComment) -> Done:
        """A finish comment: what a stage came to, with links by the public address."""
        fence = await Fence.take(self._store, arg.ref)
        urls = self._forge.urls(arg.repository)
        links = [f"[{inline(path)}]({urls.file(path, arg.sha)})" for path in arg.artifacts]
        if arg.pull is not None:
            links.append(f"[pull request #{arg.pull}]({urls.pull(arg.pull)})")
        if arg.sha:
            links.append(f"[{arg.sha[:10]}]({urls.commit(arg.sha)})")
        took = ""
        if arg.waited is not None:
            rows = await self._store.runs.totals(arg.ref.key, arg.ref.generation)
            took = table(rows, arg.waited, arg.ref.stage)
        footer = f"*{inline(arg.footer)}*" if arg.footer else ""
        parts = [f"### {inline(arg.title)}", arg.body, took, " · ".join(links), footer]
        comment_id = await self._comment(
            fence, arg.item, arg.effect, to_html("\n\n".join(part for part in parts if part))
        )
        return Done(reference=comment_id)

    @activity.defn
    async def move_item(self, arg: contract.MoveItem) -> contract.MoveResult:
        """Write the item's state, never over a person's later move."""
        fence = await Fence.take(self._store, arg.ref)
        return contract.MoveResult(outcome=await self._write_state(fence, arg.item, arg.effect, arg.to))

    async def _comment(self, fence: Fence, item: Item, effect: str, html: str) -> str:
        intent = fence.ref.intent(effect)
        known = await self._store.effects.open(intent, "plane comment")
        if known.status == "done":
            return known.reference
        await fence.check()
        # Plane refuses a second comment with the same external pair and names the first (plane.md, 2).
        comment = await self._plane.create_comment(item.project_id, item.id, html, external_id=intent)
        await self._store.effects.settle(intent, comment.id)
        return comment.id

    async def _write_state(self, fence: Fence, item: Item, effect: str, to: ItemState) -> contract.Moved:
        project = self._projects.of(fence.ref.key)
        target = (await PlaneStates.read(self._plane, project)).id_of(to)
        changes = await self._plane.state_changes(item.project_id, item.id)
        intent = fence.ref.intent(effect)
        known = await self._store.effects.open(
            intent, "plane state", {"after": changes[-1].id if changes else "", "to": target}
        )
        if known.status == "done":
            return contract.Moved.ALREADY_THERE
        since = after(changes, str(known.detail["after"]))
        if any(change.actor not in project.bots for change in since):
            await self._store.effects.settle(intent, status="abandoned")
            return contract.Moved.PERSON_MOVED_IT
        if any(change.new_state == target for change in since):
            await self._store.effects.settle(intent)
            return contract.Moved.MOVED
        if changes and changes[-1].new_state == target:
            # Writing it again would leave no trace in the history that answers could be counted from.
            await self._store.effects.settle(intent, contract.Moved.ALREADY_THERE)
            return contract.Moved.ALREADY_THERE
        await fence.check()
        await self._plane.patch_item_state(item.project_id, item.id, target)
        await self._store.effects.settle(intent)
        return contract.Moved.MOVED


def started_by_person(
    item: PlaneItem,
    changes: tuple[StateChange, ...],
    states: PlaneStates,
    bots: frozenset[str],
    last: GenerationRow | None,
) -> str | None:
    """The activity by which a person started the item since the last generation, or None.

    A generation that has not ended is started by its own activity again: this may be a retry.
    The boundary between generations is the last activity consumed (or our own closing move), not a clock.
    """
    if last is not None and last.ended_at is None:
        return last.start_activity
    in_progress = states.id_of(ItemState.IN_PROGRESS)
    fresh = after(changes, last.seen_activity or last.start_activity) if last else changes
    closing = {states.id_of(ItemState.DONE), states.id_of(ItemState.CANCELLED)}
    for change in reversed(fresh):
        if change.actor in bots and change.new_state in closing and last:
            return None
        if change.new_state == in_progress and change.actor is not None and change.actor not in bots:
            return change.id
    born_there = not changes or changes[0].old_state == in_progress
    if last is None and born_there and item.created_by and item.created_by not in bots:
        return f"created:{item.id}"
    return None


def _no(reason: str) -> contract.Beginning:
    return contract.Beginning(start=contract.Start.NOT_STARTED, reason=reason)


def _told(digest: str, answers: Answers) -> str:
    """Who decided, and whose answer came after that."""
    lines = [f"### Decision on spec `{digest}`"]
    for index, decision in enumerate(answers.all):
        word = "approved" if decision.approved else "rejected"
        reason = f": {inline(decision.reason)}" if decision.reason else ""
        said = f"{word} by {inline(decision.by)} via {decision.via}{reason}"
        lines.append(f"**{said}**" if index == 0 else f"- came later and does not count: {said}")
    return "\n\n".join(lines)
