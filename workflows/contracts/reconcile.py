"""The project side of reconcile: one pass over what changed."""

from temporalio import activity

from workflows.model import Frozen


class ReconcileProject(Frozen):
    """Look at everything that changed in a project's Plane since the last pass."""

    project: str


class Pass(Frozen):
    """What a pass came to."""

    seen: int = 0
    """Items that changed."""
    woken: int = 0
    """Tasks that were told to look."""
    started: int = 0
    """Tasks that were started, if a person really moved their item."""
    calls: int = 0
    """Plane calls it took."""
    gaps: int = 0
    """Times of refused deliveries that the pass went back before."""
    skipped: str = ""
    """Why nothing was looked at, for instance because reconcile is switched off."""


@activity.defn
async def reconcile_project(arg: ReconcileProject) -> Pass:
    """List by pages since the watermark, wake and start; the watermark moves only after that."""
    raise NotImplementedError
