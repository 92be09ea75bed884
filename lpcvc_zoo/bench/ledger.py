"""The ledger of a sweep: one SQLite file that says who does what now, what each step gave, and every row.

It is written before and after every step, so a killed sweep loses at most the step it was in. Rows are
only ever added. Two sweeps may share a ledger: a cell is claimed in one transaction, and the claim of a
sweep that died is taken over.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from lpcvc_zoo.bench.locks import Alive, held
from lpcvc_zoo.bench.plan import Cell
from lpcvc_zoo.bench.row import ResultRow
from lpcvc_zoo.errors import LedgerError
from lpcvc_zoo.files import try_to_write

FILE = "ledger.sqlite"
MARKS = ".sweeps"  # folder of lock files beside the ledger
APPLICATION_ID = 0x6C7A6F6F  # marks the file as ours ("lzoo")
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 60.0

Claim = Literal["mine", "taken", "done"]

_SCHEMA = (
    """CREATE TABLE claims (
        cell TEXT PRIMARY KEY, owner TEXT NOT NULL,
        host TEXT NOT NULL, pid INTEGER NOT NULL, since TEXT NOT NULL
    )""",
    """CREATE TABLE steps (
        key TEXT NOT NULL, step TEXT NOT NULL, source TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
        host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, finished TEXT,
        reference TEXT, value TEXT, error TEXT,
        PRIMARY KEY (key, step)
    )""",
    """CREATE TABLE results (
        id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, cell TEXT NOT NULL, slot TEXT NOT NULL,
        dataset TEXT NOT NULL, created TEXT NOT NULL, failed INTEGER NOT NULL, row TEXT NOT NULL
    )""",
    "CREATE INDEX results_by_cell ON results (cell, id)",
    """CREATE TRIGGER results_never_change BEFORE UPDATE ON results
        BEGIN SELECT RAISE(ABORT, 'rows of results are never changed'); END""",
    """CREATE TRIGGER results_never_go BEFORE DELETE ON results
        BEGIN SELECT RAISE(ABORT, 'rows of results are never deleted'); END""",
)

_ADVICE = {
    "full": "The disk is full. Make room and run the same command again; all rows so far are kept.",
    "not a database": "The file is not a ledger. Move it away, or choose another output folder.",
    "malformed": "The file is damaged. Move it away (`sqlite3 FILE .recover` may still read it, and "
    "results.csv has the rows of the last report), then run the same command again.",
    "readonly": "It can't be written. Change its permissions or choose another output folder.",
    "unable to open": "The folder or file can't be opened for writing. Choose another output folder, or "
    "read a copy of it.",
    "locked": f"Another process has kept it locked for over {BUSY_TIMEOUT_S:.0f} s. See what has it open.",
    "disk I/O": "The disk is full or has failed. Check it; all rows so far are kept if the file can be read.",
}


def now() -> str:
    """This moment as ISO 8601 in UTC; as text these sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Ledger:
    """The ledger of one output folder, opened by one sweep. Failures are LedgerErrors that say what to do.

    ``read_only``: of a ledger that is there its rows alone; the folder need not be writable.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = Path(folder) / FILE
        self._me = (socket.gethostname(), os.getpid())
        self._read_only = read_only
        if not read_only:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LedgerError(f"The output folder {folder} can't be made: {error.strerror}.") from error
        with self._explained():
            address = self.path.absolute().as_uri() + (self._way_to_read() if read_only else "")
            self._db = sqlite3.connect(address, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True)
        try:
            self._prepare()
            if not read_only:
                self._alive = Alive(self.path.parent / MARKS)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Give back every claim and close."""
        if not self._read_only:
            # Where this fails, as on a full disk, the claims are free all the same: their owner is gone.
            with suppress(LedgerError), self._transaction():
                self._db.execute("DELETE FROM claims WHERE owner = ?", (self._alive.name,))
            self._alive.close()
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def claim(self, cell: Cell, *, since: str, force: bool = False) -> Claim:
        """Claim a cell for this sweep, which began at ``since``.

        "done": a good row of it exists (with ``force``: one made after ``since``), or another sweep failed at
        it after ``since``. A scored row is good enough where no scores are asked for, not the other way
        round. "taken": a living sweep is at it.
        """
        with self._transaction():
            owner = self._db.execute("SELECT owner FROM claims WHERE cell = ?", (cell.id,)).fetchone()
            if owner is not None and self._alive.others(owner[0]):
                return "taken"
            last = self._last(cell)
            if last is not None:
                _, failed, created, _ = last
                if created >= since or not (failed or force):
                    return "done"
            self._db.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)",
                (cell.id, self._alive.name, *self._me, now()),
            )
            return "mine"

    def start(self, key: str, step: str, source: str) -> None:
        """Note that a step begins. ``source`` identifies what it works on, such as a file's sha256."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO steps (key, step, source, state, host, pid, started) "
                "VALUES (?, ?, ?, 'running', ?, ?, ?)",
                (key, step, source, *self._me, now()),
            )

    def refer(self, key: str, step: str, reference: str) -> None:
        """Note where a step that was started goes on, such as a job somewhere else, before waiting for it."""
        with self._transaction():
            self._db.execute(
                "UPDATE steps SET reference = ? WHERE key = ? AND step = ?", (reference, key, step)
            )

    def finish(self, key: str, step: str, value: str, reference: str | None = None) -> None:
        """Note what a step gave (JSON), and a remote job's id where there is one."""
        self._end(key, step, "done", value=value, reference=reference)

    def fail(self, key: str, step: str, error: str) -> None:
        self._end(key, step, "failed", error=error)

    def value(self, key: str, step: str, source: str, *, since: str = "") -> str | None:
        """What that step gave from the same source, if it ended well at ``since`` or later; else None."""
        with self._explained():
            found = self._db.execute(
                "SELECT value FROM steps WHERE key = ? AND step = ? AND source = ? AND state = 'done' "
                "AND finished >= ?",
                (key, step, source, since),
            ).fetchone()
        return None if found is None else str(found[0])

    def reference(self, key: str, step: str, source: str, *, since: str = "") -> str | None:
        """Where that step from the same source goes on, if it began since then and did not fail."""
        with self._explained():
            found = self._db.execute(
                "SELECT reference FROM steps WHERE key = ? AND step = ? AND source = ? AND state != 'failed' "
                "AND started >= ?",
                (key, step, source, since),
            ).fetchone()
        return None if found is None else found[0]

    def append(self, cell: Cell, row: ResultRow) -> None:
        """Add a row and end the claim on its cell, both or neither."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO results (key, cell, slot, dataset, created, failed, row) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    row.key,
                    cell.id,
                    cell.slot,
                    cell.dataset or "",
                    row.created,
                    row.error is not None,
                    row.model_dump_json(round_trip=True),
                ),
            )
            self._db.execute("DELETE FROM claims WHERE cell = ? AND owner = ?", (cell.id, self._alive.name))

    def rows(self) -> list[ResultRow]:
        """What a report shows, oldest first: of each slot the latest row.

        Where that row was scored, the slot's latest rows on other datasets are shown beside it.
        """
        with self._explained():
            found = self._db.execute(
                "SELECT id, slot, dataset, row FROM results "
                "WHERE id IN (SELECT max(id) FROM results GROUP BY slot, dataset "
                # Of one key only the newest, also where the form of slots has changed in between.
                "INTERSECT SELECT max(id) FROM results GROUP BY key) ORDER BY id"
            ).fetchall()
        newest = {slot: dataset for _, slot, dataset, _ in found}  # the last of each slot stays
        return [
            self._parse(number, text)
            for number, slot, dataset, text in found
            if bool(dataset) == bool(newest[slot])
        ]

    def row_of(self, cell: Cell) -> ResultRow | None:
        """The latest row that answers for a cell, good or not."""
        with self._explained():
            last = self._last(cell)
        return None if last is None else self._parse(last[0], last[3])

    def history(self) -> list[ResultRow]:
        """Every row ever added, oldest first."""
        with self._explained():
            found = self._db.execute("SELECT id, row FROM results ORDER BY id").fetchall()
        return [self._parse(number, text) for number, text in found]

    def reporting(self) -> AbstractContextManager[None]:
        """Hold this while rows are read and their report is written: no older report replaces a newer one."""
        return held(self.path.parent / MARKS / "report.lock")

    def _last(self, cell: Cell) -> tuple[int, int, str, str] | None:
        found: tuple[int, int, str, str] | None = self._db.execute(
            "SELECT id, failed, created, row FROM results WHERE cell = ? AND (key = ? OR ?) "
            "ORDER BY id DESC LIMIT 1",
            (cell.id, cell.key, cell.dataset is None),
        ).fetchone()
        return found

    def _parse(self, number: int, text: str) -> ResultRow:
        try:
            return ResultRow.model_validate_json(text)
        except ValidationError as error:
            raise LedgerError(
                f"{self.path}: row {number} is not one that this version can read "
                f"({error.error_count()} problems, first: {error.errors()[0]['msg']}). "
                "Choose another output folder; the file is left as it is."
            ) from None

    def _end(
        self, key: str, step: str, state: str, *, value: str | None = None, reference: str | None = None,
        error: str | None = None,
    ) -> None:  # fmt: skip
        with self._transaction():
            self._db.execute(
                "UPDATE steps SET state = ?, finished = ?, value = ?, reference = ?, error = ? "
                "WHERE key = ? AND step = ?",
                (state, now(), value, reference, error, key, step),
            )

    def _way_to_read(self) -> str:
        """How SQLite opens a file that is there: by files of its log, which it can't make everywhere."""
        try:
            try_to_write(self.path.parent)
        except OSError:
            closed = not self.path.with_name(f"{FILE}-wal").exists()  # by all: nothing is in a log
            return "?immutable=1" if closed else "?mode=ro"
        return "?mode=rw"

    def _prepare(self) -> None:
        """Make the tables in a new file; check an existing one before touching it."""
        with self._explained():
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and application != APPLICATION_ID:
                raise LedgerError(
                    f"{self.path} is a database of something else. Choose another output folder."
                )
            if self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise LedgerError(
                    f"{self.path} was written by a newer lpcvc_zoo (ledger format {version}; this one knows "
                    f"{SCHEMA_VERSION}). Update lpcvc_zoo, or choose another output folder."
                )
            if version == 0:
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        with self._explained():
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise LedgerError(f"{self.path}: {problem}. {_ADVICE['malformed']}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # some failures, a full disk among them, have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            advice = next((text for sign, text in _ADVICE.items() if sign in str(error)), "")
            raise LedgerError(f"{self.path}: {error}. {advice}".rstrip()) from error
