"""Plane's way of delivering (contract: plane.md section 1).

Any HTTP answer counts as delivered; only connection errors and timeouts are retried, each attempt under a new
delivery id; when the last retry fails the hook is switched off for good.
"""

import hashlib
import hmac
import json
import random
from typing import Any

from deploy.sandbox.config import SandboxConfig
from deploy.sandbox.hooks import Delivery, Dispatcher
from deploy.sandbox.plane import shapes
from deploy.sandbox.plane.records import Comment, Item, Project, Tables, User
from deploy.sandbox.store import Store

Subject = Item | Comment | Project


class PlaneVendor:
    """Renders late, signs the sent bytes, retries what got no answer."""

    retries = 5

    def __init__(self, tables: Tables, config: SandboxConfig) -> None:
        self._tables = tables
        self._base = config.plane_retry_base
        self.timeout = config.plane_webhook_timeout

    def active(self, delivery: Delivery) -> bool:
        """A hook that was switched off receives nothing more."""
        hook = self._tables.webhooks.get(delivery.hook)
        return hook is not None and hook.is_active

    def render(self, delivery: Delivery) -> str | None:
        """The body, with `data` as it is now; an object deleted meanwhile gives no event."""
        envelope = dict(delivery.payload)
        data = self._data(envelope["event"], envelope.pop("subject"))
        return None if data is None else json.dumps({**envelope, "data": data})

    def headers(self, delivery: Delivery, body: bytes, delivery_id: str) -> dict[str, str]:
        """The recorded headers."""
        hook = self._tables.webhooks.get(delivery.hook)
        assert hook, "active() was asked first"
        return {
            "User-Agent": "Autopilot",
            "Content-Type": "application/json",
            "X-Plane-Delivery": delivery_id,
            "X-Plane-Event": delivery.event,
            "X-Plane-Signature": hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest(),
        }

    def retry_wait(self) -> float:
        """Full jitter: base and cap are the same 600 s in Plane."""
        return random.uniform(0, self._base)  # noqa: S311 - jitter, not a secret

    def gave_up(self, delivery: Delivery) -> None:
        """Switch the hook off, as Plane does after the fifth retry."""
        if hook := self._tables.webhooks.get(delivery.hook):
            hook.is_active = False
            self._tables.webhooks.put(hook)

    def _data(self, event: str, subject: str) -> dict[str, Any] | None:
        match event:
            case "issue":
                record: Subject | None = self._tables.items.get(subject)
            case "issue_comment":
                record = self._tables.comments.get(subject)
            case _:
                record = self._tables.projects.get(subject)
        return None if record is None else shapes.event_data(event, record, self._tables)


class Emitter:
    """Queues one delivery for each changed key and each interested hook."""

    def __init__(self, store: Store, tables: Tables, config: SandboxConfig) -> None:
        self._tables = tables
        self._delay = config.plane_activity_delay
        self.dispatcher = Dispatcher(store, "plane", PlaneVendor(tables, config))

    def emit(
        self,
        event: str,
        action: str,
        subject: Subject,
        actor: User,
        change: tuple[str, object, object] | None = None,
    ) -> None:
        """Tell every active hook of the workspace; `change` is (field, old value, new value)."""
        field, old, new = change or (None, None, None)
        for hook in self._tables.webhooks.of(subject.workspace):
            if not hook.is_active or event not in hook.events:
                continue
            activity = {
                "field": field, "new_value": new, "old_value": old, "actor": shapes.user(actor),
                "old_identifier": None, "new_identifier": None,
            }  # fmt: skip
            payload = {
                "event": event, "action": action, "webhook_id": hook.id, "workspace_id": subject.workspace,
                "subject": subject.id, "activity": activity,
            }  # fmt: skip
            self.dispatcher.send(hook=hook.id, url=hook.url, event=event, payload=payload, delay=self._delay)
