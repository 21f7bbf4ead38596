"""PostgreSQL as the activities see it: every write is idempotent, every key is ours to look up again."""

from activities.adapters.store.acts import Acts
from activities.adapters.store.deliveries import Deliveries
from activities.adapters.store.deployments import DeploymentRow, DeploymentRows
from activities.adapters.store.effects import Effect, Effects
from activities.adapters.store.fences import Fences, StaleAttempt
from activities.adapters.store.freezes import FreezeRow, Freezes
from activities.adapters.store.gaps import Gap, Gaps
from activities.adapters.store.landings import LandingRow, Landings, LeaseRow
from activities.adapters.store.outbox import Outbox, OutboxRow
from activities.adapters.store.pool import DATABASE_AWAY, Pool, open_pool, outlast
from activities.adapters.store.runs import Runs
from activities.adapters.store.tasks import ActRow, GenerationRow, Tasks

__all__ = [
    "DATABASE_AWAY",
    "ActRow",
    "Acts",
    "Deliveries",
    "DeploymentRow",
    "DeploymentRows",
    "Effect",
    "Effects",
    "Fences",
    "FreezeRow",
    "Freezes",
    "Gap",
    "Gaps",
    "GenerationRow",
    "LandingRow",
    "Landings",
    "LeaseRow",
    "Outbox",
    "OutboxRow",
    "Pool",
    "Runs",
    "StaleAttempt",
    "Store",
    "Tasks",
    "open_pool",
    "outlast",
]


class Store:
    """All tables, by what they are for, over one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.tasks = Tasks(pool)
        self.effects = Effects(pool)
        self.deliveries = Deliveries(pool)
        self.gaps = Gaps(pool)
        self.fences = Fences(pool)
        self.landings = Landings(pool)
        self.deployments = DeploymentRows(pool)
        self.freezes = Freezes(pool)
        self.runs = Runs(pool)
        self.acts = Acts(pool)
        self.outbox = Outbox(pool)
