"""Reading a person's decision: Plane's state activities and operators' acts, the earliest wins."""

from dataclasses import dataclass
from datetime import datetime

from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import StateChange
from activities.adapters.store import ActRow, Store
from activities.plane_states import PlaneStates, after
from workflows.contracts.items import Moved
from workflows.model import Item, ItemState, TaskRef
from workflows.projects import ProjectConfig


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer to the question asked. `id` is the act's, or the Plane activity's."""

    id: str
    approved: bool
    by: str
    at: datetime
    via: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What has been answered so far. `asked` is False while Plane has not recorded our asking."""

    asked: bool
    all: tuple[Decision, ...]
    """Every answer, the one that counts first, then by time."""

    @property
    def decision(self) -> Decision | None:
        """The one that counts."""
        return self.all[0] if self.all else None


class Decisions:
    """Evaluates both sources at once, whichever was down meanwhile."""

    def __init__(self, plane: PlaneClient, store: Store) -> None:
        self._plane = plane
        self._store = store

    async def read(self, ref: TaskRef, ask_effect: str, item: Item, project: ProjectConfig, digest: str) -> Answers:
        """The earliest decision on exactly this digest, asked for in exactly this round."""
        states = await PlaneStates.read(self._plane, project)
        changes = await self._plane.state_changes(item.project_id, item.id)
        intent = await self._store.effects.find(ref.intent(ask_effect))
        # What was there before the intent answers an older question.
        fresh = after(changes, str(intent.detail["after"])) if intent else ()
        answers = since_asked(fresh, states.id_of(ItemState.AWAITING_APPROVAL), project.bots)
        if answers is None and intent and intent.reference == Moved.ALREADY_THERE:
            answers = fresh  # it waited there when we asked, for instance after a pause
        acts = tuple(_of_act(row) for row in await self._store.tasks.decisions(ref.key, digest))
        moves = await self._of_moves(answers or (), states, project)
        ordered = tuple(sorted((*acts, *moves), key=lambda decision: decision.at))
        if ordered:
            ordered = await self._stands(ref, ask_effect, ordered)
            await self._store.tasks.settle_decision(ref.key, digest, ordered[0].id)
        return Answers(asked=answers is not None, all=ordered)

    async def _stands(self, ref: TaskRef, ask_effect: str, ordered: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """The earliest answer of the first look that finds any stands, also if an earlier one turns up later.

        Rows become visible, and Plane writes its history, somewhat after the time they carry: without this
        two looks could disagree, and the comment name another answer than the one the task went by.
        """
        intent = ref.intent(f"{ask_effect}-decided")
        known = await self._store.effects.open(intent, "decision", {"id": ordered[0].id})
        standing = str(known.detail["id"])
        await self._store.effects.settle(intent, standing)
        return tuple(sorted(ordered, key=lambda decision: decision.id != standing))

    async def _of_moves(
        self, changes: tuple[StateChange, ...], states: PlaneStates, project: ProjectConfig
    ) -> tuple[Decision, ...]:
        answers = {states.id_of(ItemState.APPROVED): True, states.id_of(ItemState.REJECTED): False}
        counted = [
            change
            for change in changes
            if change.new_state in answers and change.actor in project.approvers - project.bots
        ]
        if not counted:
            return ()
        people = {user.id: user for user in await self._plane.list_members(project.plane_project_id)}
        return tuple(
            Decision(
                id=change.id,
                approved=answers[str(change.new_state)],
                by=people[str(change.actor)].display_name if change.actor in people else str(change.actor),
                at=change.created_at,
                via="plane",
            )
            for change in counted
        )


def since_asked(
    changes: tuple[StateChange, ...], awaiting: str, bots: frozenset[str]
) -> tuple[StateChange, ...] | None:
    """The state changes after our last move to awaiting approval; None if Plane has not recorded it yet."""
    for index in range(len(changes) - 1, -1, -1):
        if changes[index].new_state == awaiting and changes[index].actor in bots:
            return changes[index + 1 :]
    return None


def _of_act(row: ActRow) -> Decision:
    return Decision(
        id=row.act_id,
        approved=row.act == "approve",
        by=row.actor,
        at=row.at,
        via=row.via,
        reason=row.reason,
    )
