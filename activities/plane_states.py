"""A Plane project's states by our words for them, and reading the history of an item's states."""

from activities.adapters.errors import NotFound
from activities.adapters.plane import PlaneClient
from activities.adapters.plane_models import StateChange
from workflows.model import ItemState
from workflows.projects import ProjectConfig


class PlaneStates:
    """A project's state UUIDs by our words for them."""

    def __init__(self, project: ProjectConfig, ids: dict[str, str]) -> None:
        self._project = project
        self._ids = ids

    @classmethod
    async def read(cls, plane: PlaneClient, project: ProjectConfig) -> "PlaneStates":
        """Ask Plane for the project's states."""
        states = await plane.list_states(project.plane_project_id)
        return cls(project, {state.name.casefold(): state.id for state in states})

    def id_of(self, state: ItemState) -> str:
        """The UUID of a state.

        Raises:
            NotFound: the project has no state of the configured name.
        """
        name = self._project.states.name_of(state)
        try:
            return self._ids[name.casefold()]
        except KeyError:
            raise NotFound(
                f"the Plane project has no state named {name!r}; create it in Plane, or set "
                f"states.{state.value} of the project in orch.toml to the name it has"
            ) from None

    def name_of(self, state_id: str) -> str:
        """What Plane calls a state."""
        return next((name for name, known in self._ids.items() if known == state_id), state_id)


def after(changes: tuple[StateChange, ...], activity_id: str) -> tuple[StateChange, ...]:
    """The changes that follow an activity; all of them if it is not there."""
    ids = [change.id for change in changes]
    return changes[ids.index(activity_id) + 1 :] if activity_id in ids else changes
