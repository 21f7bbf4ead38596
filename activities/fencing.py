"""An activity's right to act: lost as soon as a newer attempt of the task has begun."""

from temporalio import activity

from activities.adapters.store import Store
from workflows.model import TaskRef


class Fence:
    """Taken when an attempt begins, checked before each outward effect."""

    def __init__(self, store: Store, ref: TaskRef, attempt: int) -> None:
        self._store = store
        self.ref = ref
        self.attempt = attempt

    @classmethod
    async def take(cls, store: Store, ref: TaskRef) -> "Fence":
        """Become the task's newest attempt.

        Raises:
            StaleAttempt: a newer one has begun; nothing may be done any more.
        """
        fence = cls(store, ref, activity.info().attempt)
        await store.fences.take(ref.key, ref.generation, ref.step, fence.attempt, ref.stage)
        return fence

    async def check(self) -> None:
        """Make sure that this is still the newest attempt.

        Raises:
            StaleAttempt: it is not.
        """
        ref = self.ref
        await self._store.fences.check(ref.key, ref.generation, ref.step, self.attempt)
