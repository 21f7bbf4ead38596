"""Reading, in one evaluation, what people have done to a task's item, pull request and branch."""

from dataclasses import dataclass

from temporalio import activity

from activities.adapters.errors import AdapterError, NotFound
from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import State, StateChange
from activities.adapters.store import Store
from activities.forge import Forge
from activities.plane_states import after
from activities.projects import Projects
from workflows.contracts.items import ReadSituation
from workflows.model import ItemState
from workflows.projects import ProjectConfig
from workflows.situation import ItemStanding, PersonMove, PullStanding, Situation, StateKind

_OURS = {
    ItemState.IN_PROGRESS: StateKind.IN_PROGRESS,
    ItemState.AWAITING_APPROVAL: StateKind.AWAITING,
    ItemState.APPROVED: StateKind.APPROVED,
    ItemState.REJECTED: StateKind.REJECTED,
    ItemState.DONE: StateKind.DONE,
    ItemState.CANCELLED: StateKind.CANCELLED,
}
_GROUPS = {
    "backlog": StateKind.NOT_STARTED,
    "unstarted": StateKind.NOT_STARTED,
    "started": StateKind.STARTED,
    "completed": StateKind.DONE,
    "cancelled": StateKind.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class _Item:
    standing: ItemStanding
    move: PersonMove | None = None
    seen: str = ""


class Situations:
    """Looks at both sources. What is missing counts as a person's act only if its parent answers in the same look."""

    def __init__(self, plane: PlaneClient, forge: Forge, store: Store, projects: Projects) -> None:
        self._plane = plane
        self._forge = forge
        self._store = store
        self._projects = projects

    @activity.defn
    async def read_situation(self, arg: ReadSituation) -> Situation:
        """A source that cannot be read is a problem, from which nothing follows."""
        try:
            project = self._projects.of(arg.ref.key)
            pull, merged_sha = await self._pull(arg)
            gone = await self._branch_gone(arg) if pull in {PullStanding.NONE, PullStanding.OPEN} else False
            item = await self._item(arg, project)
        except AdapterError as error:
            return Situation(problem=str(error))
        return Situation(
            item=item.standing,
            move=item.move,
            pull=pull,
            branch_gone=gone,
            merged_sha=merged_sha,
            seen_activity=item.seen,
        )

    async def _item(self, arg: ReadSituation, project: ProjectConfig) -> _Item:
        try:
            item = await self._plane.get_item(arg.item.project_id, arg.item.id)
        except NotFound:
            await self._plane.get_project(arg.item.project_id)  # the parent answers, or this is a problem
            return _Item(ItemStanding.MISSING)
        changes = await self._plane.state_changes(arg.item.project_id, arg.item.id)
        fresh = after(changes, arg.seen_activity)
        move = await self._move(fresh, project)
        standing = ItemStanding.THERE if item.archived_at is None else ItemStanding.MISSING
        return _Item(standing, move, changes[-1].id if changes else "")

    async def _move(self, fresh: tuple[StateChange, ...], project: ProjectConfig) -> PersonMove | None:
        """The newest move by a person. An older one it replaces is history: state is truth."""
        by_people = [change for change in fresh if change.actor is not None and change.actor not in project.bots]
        if not by_people:
            return None
        states = {state.id: state for state in await self._plane.list_states(project.plane_project_id)}
        people = {user.id: user.display_name for user in await self._plane.list_members(project.plane_project_id)}
        moves = []
        for change in by_people:
            state = states.get(change.new_state or "")
            who = people.get(change.actor or "", change.actor or "somebody")
            if state is not None:
                moves.append(PersonMove(to=kind_of(state, project), state=state.name, by=who))
        return newest(moves)

    async def _pull(self, arg: ReadSituation) -> tuple[PullStanding, str]:
        if arg.pull is None:
            return PullStanding.NONE, ""
        client = self._forge.client(arg.repository)
        pull = await client.get_pull(arg.pull)
        if not pull.merged:
            return (PullStanding.OPEN if pull.state == "open" else PullStanding.CLOSED), ""
        ours = await self._store.landings.is_ours(str(arg.repository), pull.head.sha)
        merged = pull.merge_commit_sha or pull.head.sha
        return (PullStanding.LANDED if ours else PullStanding.MERGED_BY_HAND), merged

    async def _branch_gone(self, arg: ReadSituation) -> bool:
        if not arg.branch_expected:
            return False
        client = self._forge.client(arg.repository)
        if await client.get_branch(arg.branch) is not None:
            return False
        await client.get_repo()  # the parent answers, or this is a problem
        return True


def newest(moves: list[PersonMove]) -> PersonMove | None:
    """The move that counts: the newest; but an answer after a move to in progress does not hide that one."""
    if not moves:
        return None
    if moves[-1].to in {StateKind.APPROVED, StateKind.REJECTED}:
        return next((move for move in reversed(moves) if move.to is StateKind.IN_PROGRESS), moves[-1])
    return moves[-1]


def kind_of(state: State, project: ProjectConfig) -> StateKind:
    """What a Plane state means: one of the configured names first, else its group."""
    for ours, kind in _OURS.items():
        if state.name.casefold() == project.states.name_of(ours).casefold():
            return kind
    return _GROUPS.get(state.group, StateKind.STARTED)
