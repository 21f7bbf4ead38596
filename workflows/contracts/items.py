"""What the workflows ask of Plane: starts, decisions, comments, states."""

from enum import StrEnum

from temporalio import activity

from workflows.model import (
    Done,
    Frozen,
    Item,
    ItemState,
    Repository,
    Stage,
    TaskRef,
)
from workflows.projects import ProjectFacts
from workflows.situation import Situation


class BeginGeneration(Frozen):
    """Ask whether a person has started this task since its last generation."""

    key: str


class Start(StrEnum):
    """Whether a task starts."""

    STARTED = "started"
    NOT_STARTED = "not started"
    NOT_YET_KNOWN = "not yet known"
    """The item is In Progress, but the activity that says who moved it is not written yet."""


class Beginning(Frozen):
    """The answer, with what the new generation needs."""

    start: Start
    reason: str
    generation: int = 0
    step: int = 0
    """The last step of a run of this generation that ended without closing it, for instance by `terminate`."""
    start_activity: str = ""
    item: Item | None = None
    project: ProjectFacts | None = None


class AskDecision(Frozen):
    """Ask a person to decide on exactly one spec."""

    ref: TaskRef
    effect: str
    """Names this asking among those of the round; a pause may make it necessary to ask again."""
    item: Item
    digest: str
    spec_path: str
    head_sha: str
    repository: Repository


class SettleDecision(Frozen):
    """Tell everybody who answered what counted, and move the item back to In Progress."""

    ref: TaskRef
    item: Item
    digest: str
    ask_effect: str


class ShowStatus(Frozen):
    """Bring the item's one status comment up to date. `lines` is Markdown of ours."""

    ref: TaskRef
    item: Item
    headline: str
    lines: str


class PostComment(Frozen):
    """Post what a stage came to on the item, once for each intent.

    `title` and `footer` are ours; `body` is an agent's text and is cleaned before it is posted.
    """

    ref: TaskRef
    effect: str
    item: Item
    repository: Repository
    title: str
    body: str = ""
    footer: str = ""
    artifacts: tuple[str, ...] = ()
    """Paths on the task branch, linked at `sha`."""
    sha: str = ""
    pull: int | None = None
    waited: dict[Stage, float] | None = None
    """Seconds waited in each stage: given with a closing comment, which has a table of what the task took."""


class MoveItem(Frozen):
    """Move the item to a state, unless a person has moved it since the intent."""

    ref: TaskRef
    effect: str
    item: Item
    to: ItemState


class Moved(StrEnum):
    """What became of a state write."""

    MOVED = "moved"
    ALREADY_THERE = "already there"
    PERSON_MOVED_IT = "a person moved it"


class MoveResult(Frozen):
    """The outcome of `move_item`."""

    outcome: Moved


class ReadSituation(Frozen):
    """Look at everything a person may have touched since `seen_activity`."""

    ref: TaskRef
    item: Item
    repository: Repository
    branch: str
    branch_expected: bool
    pull: int | None
    seen_activity: str


@activity.defn
async def begin_generation(arg: BeginGeneration) -> Beginning:
    """Read the item and its activities; allocate the next generation if a person started it."""
    raise NotImplementedError


@activity.defn
async def ask_decision(arg: AskDecision) -> Done:
    """Post the spec's link and digest, then move the item to awaiting approval."""
    raise NotImplementedError


@activity.defn
async def settle_decision(arg: SettleDecision) -> Done:
    """One comment, one state write."""
    raise NotImplementedError


@activity.defn
async def show_status(arg: ShowStatus) -> Done:
    """Create the comment the first time, edit it after that."""
    raise NotImplementedError


@activity.defn
async def post_comment(arg: PostComment) -> Done:
    """Post a comment; a repeat finds the first one."""
    raise NotImplementedError


@activity.defn
async def move_item(arg: MoveItem) -> MoveResult:
    """Write the item's state."""
    raise NotImplementedError


@activity.defn
async def read_situation(arg: ReadSituation) -> Situation:
    """Read item, pull request and branch in one evaluation; what cannot be read is a `problem`, never an act."""
    raise NotImplementedError
