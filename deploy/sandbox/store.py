"""Everything the sandbox remembers: one SQLite file, read into memory at start and written through.

The servers are one process with one event loop,
so memory is the truth while it runs and the file is the truth
after a kill. WAL with `synchronous=NORMAL` survives `kill -9`; only a power cut can lose the last writes.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

LOCK_SECONDS = 2.0
SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, id)
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Record(BaseModel):
    """A stored object. Change its fields freely, then `put` it."""

    id: str


R = TypeVar("R", bound=Record)


class HomeInUseError(Exception):
    """Another process has the file open."""


class Store:
    """The file itself, held by one process alone, and numbers that never repeat."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS)
        try:
            self._db.executescript(SCHEMA)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise HomeInUseError(f"{path.parent} is used by another sandbox: {error}") from error

    def close(self) -> None:
        """Close the file; the store is of no use afterwards."""
        self._db.close()

    def next(self, counter: str) -> int:
        """The next number of a named counter, from 1, never given twice."""
        row = self._db.execute(
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
            (counter,),
        ).fetchone()
        return int(row[0])

    def read(self, kind: str) -> list[str]:
        """Every stored body of a kind, oldest first."""
        rows = self._db.execute("SELECT body FROM records WHERE kind = ? ORDER BY position", (kind,))
        return [str(row[0]) for row in rows]

    def write(self, kind: str, record_id: str, body: str) -> None:
        """Insert or replace one body; its place in the order stays."""
        self._db.execute(
            "INSERT INTO records (kind, id, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            (kind, record_id, body),
        )

    def erase(self, kind: str, record_id: str) -> None:
        """Delete one body, if it is there."""
        self._db.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, record_id))


class Table(Generic[R]):
    """All records of one model, in insertion order, optionally grouped by a parent that never changes."""

    def __init__(self, store: Store, kind: str, model: type[R], parent: Callable[[R], str] | None = None) -> None:
        self._store, self._kind, self._parent = store, kind, parent
        self._rows: dict[str, R] = {}
        self._groups: defaultdict[str, dict[str, R]] = defaultdict(dict)
        for body in store.read(kind):
            self._remember(model.model_validate_json(body))

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, record_id: str) -> R | None:
        """The record, or None."""
        return self._rows.get(record_id)

    def all(self) -> list[R]:
        """Every record, oldest first."""
        return list(self._rows.values())

    def of(self, parent: str) -> list[R]:
        """The records of one parent, oldest first."""
        return list(self._groups[parent].values()) if parent in self._groups else []

    def find(self, matches: Callable[[R], bool]) -> R | None:
        """The oldest record that matches, or None."""
        return next((row for row in self._rows.values() if matches(row)), None)

    def put(self, record: R) -> R:
        """Insert or update, on disk before this returns."""
        self._store.write(self._kind, record.id, record.model_dump_json())
        self._remember(record)
        return record

    def delete(self, record: R) -> None:
        """Forget the record."""
        self._store.erase(self._kind, record.id)
        self._rows.pop(record.id, None)
        if self._parent:
            self._groups[self._parent(record)].pop(record.id, None)

    def _remember(self, record: R) -> None:
        self._rows[record.id] = record
        if self._parent:
            self._groups[self._parent(record)][record.id] = record
