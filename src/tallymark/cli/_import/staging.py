"""The rows of all files, grouped in a database of DuckDB on disk: out of core, resumable.

Tables: ``files`` has what is staged, ``staged`` the rows, which `Stage.group` turns into
``events``, ``users`` and ``marks``, and ``rejects``; ``state`` how far the import is.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import duckdb

from .._errors import UsageError
from .damage import undamaged
from .expressions import ID_TYPES, SKIPPED
from .fields import text
from .readers import READ_ERRORS, problem, relation, unreadable
from .rows import LONGEST_ROW, rows_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .expressions import Rules
    from .readers import Layout
    from .rows import RowMapping
    from .sources import Source

__all__ = ["Stage"]

#: How many users the marks of a part have together. The tally caches the numbers of 1,000,000
#: users by default, so it looks up each user's number once, however many there are.
_USERS_OF_A_PART: Final = 500_000

#: How many marks are looked up to know whether the store still has them.
_PROBES: Final = 200

_DATABASE: Final = "import.duckdb"


class Stage:
    """The database of one import.

    Attributes:
        connection: the connection with it.
    """

    def __init__(
        self, folder: Path, sources: Sequence[Source], *, memory: str, user_ids: str | None
    ) -> None:
        """Open or make it.

        Arguments:
            folder: where it is.
            sources: the files.
            memory: how much memory DuckDB may use, such as ``512MB``.
            user_ids: the name of the type of ids; ``None`` for offsets.

        Raises:
            UsageError: another process imports the same.
        """
        self._sources = sources
        self._user_ids = user_ids
        try:
            self.connection = duckdb.connect(
                str(folder / _DATABASE),
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "temp_directory": str(folder / "spilled"),
                },
            )
        except duckdb.Error as error:
            raise UsageError(
                f"another process imports the same, or {folder} is damaged: {problem(error)}"
            ) from None
        self._configure(folder, memory)
        for table in (
            "files (file INTEGER PRIMARY KEY, rows BIGINT, skipped BIGINT, rejected BIGINT)",
            f"""staged (file INTEGER, event VARCHAR, user_id {ID_TYPES[user_ids]}, bucket INTEGER,
            reason VARCHAR, line BIGINT, row VARCHAR)""",
            "state (name VARCHAR PRIMARY KEY, value VARCHAR)",
        ):
            self.connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def _configure(self, folder: Path, memory: str) -> None:
        try:
            self.connection.execute(f"SET memory_limit = {text(memory)}")
        except duckdb.Error as error:
            raise UsageError(f"--memory: {problem(error)}") from None
        files = ", ".join(text(str(source.path)) for source in self._sources)
        # The user's own SQL reads the rows, and no other file.
        for setting in (
            "TimeZone = 'UTC'",
            "enable_progress_bar = true",
            "enable_progress_bar_print = false",
            f"allowed_directories = [{text(str(folder) + os.sep)}]",
            f"allowed_paths = [{files}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self.connection.execute(f"SET {setting}")

    def close(self) -> None:
        """Close the database; its files stay."""
        self.connection.close()

    # --- state

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of the state, as JSON has it."""
        value = self.one("SELECT value FROM state WHERE name = ?", name)
        return default if value is None else json.loads(value)

    def put(self, **values: Any) -> None:
        """Store values of the state, all of them or none."""
        rows = ", ".join(["(?, ?)"] * len(values))
        arguments = [part for name, value in values.items() for part in (name, json.dumps(value))]
        self.connection.execute(f"INSERT OR REPLACE INTO state VALUES {rows}", arguments)

    def one(self, query: str, *arguments: Any) -> Any:
        """Return the first value of a query; ``None`` without a row."""
        row = self.connection.execute(query, list(arguments)).fetchone()
        return None if row is None else row[0]

    # --- rows

    def is_read(self, number: int) -> bool:
        """Return whether the rows of a file are staged."""
        return self.one("SELECT 1 FROM files WHERE file = ?", number) is not None

    def read(self, number: int, rules: Rules, mapping: RowMapping, layout: Layout) -> None:
        """Stage the rows of a file, all of them or none.

        Arguments:
            number: its index.
            rules: what rows have to be.
            mapping: where the event, the user and the time are.
            layout: how the file is written.

        Raises:
            UsageError: it cannot be read, or lacks columns.
        """
        source, connection = self._sources[number], self.connection
        rows = relation(connection, source, layout, mapping.preset)
        query = rows and rows_query(connection, source, number, rows, mapping, rules)
        connection.execute("BEGIN")
        try:
            if rows is not None and query is not None:
                if self._has_read_errors():  # of the first lines, which are read several times
                    connection.execute(f"DELETE FROM {READ_ERRORS}")
                try:
                    with undamaged(source):
                        connection.execute(f"INSERT INTO staged {query}")
                except duckdb.OutOfMemoryException:
                    raise
                except duckdb.Error as error:
                    raise unreadable(source, error) from None
                if self._has_read_errors():
                    self._add_read_errors(number, rows.first_line)
            connection.execute(
                "INSERT INTO files SELECT ?, count(*), count(*) FILTER (reason = ?), "
                "count(*) FILTER (reason <> ?) FROM staged WHERE file = ?",
                [number, SKIPPED, SKIPPED, number],
            )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _has_read_errors(self) -> bool:
        query = "SELECT 1 FROM duckdb_tables() WHERE table_name = ?"
        return self.one(query, READ_ERRORS) is not None

    def _add_read_errors(self, number: int, first_line: int) -> None:
        """Add what DuckDB could not split or decode, and correct the numbers of later lines."""
        connection = self.connection
        found = (
            "SELECT DISTINCT ON (line) line, CASE error_type WHEN 'INVALID ENCODING' THEN "
            "'not in the encoding; --encoding names another' "
            "ELSE lower(error_type) || ': ' || error_message END AS reason, "
            f"left(trim(csv_line, chr(13) || chr(10)), {LONGEST_ROW}) AS row "
            f"FROM {READ_ERRORS} ORDER BY line"
        )
        lines = connection.execute(f"SELECT line FROM ({found}) ORDER BY line").fetchall()
        if not lines:
            return
        # A number counts the lines that could be read: of the n-th line with an error, n - 1
        # others come before. So behind it, numbers are higher by n.
        connection.execute(
            "UPDATE staged SET line = staged.line + (SELECT count(*) FROM (SELECT line - "
            f"row_number() OVER (ORDER BY line) AS before FROM ({found})) "
            "WHERE before < staged.line) WHERE file = ? AND staged.line IS NOT NULL",
            [number],
        )
        connection.execute(
            f"INSERT INTO staged SELECT {number}, NULL, NULL, NULL, reason, line, row "
            f"FROM ({found}) WHERE line >= {first_line}"
        )

    def group(self) -> None:
        """Make the tables of marks, sorted, without repetitions, from the rows that are staged."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            self._group()
            self.put(is_grouped=True)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("CHECKPOINT")

    def _group(self) -> None:
        good = "FROM staged WHERE reason IS NULL"
        queries = [
            f"""CREATE TABLE rejects AS SELECT file, line, reason, row FROM staged
            WHERE reason <> '{SKIPPED}' ORDER BY file, line""",
            f"""CREATE TABLE events AS SELECT CAST(row_number() OVER (ORDER BY event) AS INTEGER)
            AS number, event FROM (SELECT DISTINCT event {good})""",
        ]
        if self._user_ids is None:  # offsets are numbers, and the tally caches none
            part, user, users = "0", "user_id", ""
        else:
            part, user = f"CAST(users.number // {_USERS_OF_A_PART} AS INTEGER)", "users.number"
            users = "JOIN users USING (user_id)"
            queries.append(
                "CREATE TABLE users AS SELECT row_number() OVER () - 1 AS number, user_id "
                f"FROM (SELECT DISTINCT user_id {good})"
            )
        # Numbers are sorted in a third of the time of the texts.
        queries += [
            f"""CREATE TABLE marks AS SELECT DISTINCT {part} AS part, events.number AS event,
            bucket, {user} AS user FROM (SELECT event, user_id, bucket {good})
            JOIN events USING (event) {users} ORDER BY part, event, bucket, user""",
            "DROP TABLE staged",
        ]
        for query in queries:
            self.connection.execute(query)

    # --- marks

    def users(self) -> int:
        """Return how many users have marks."""
        query = "SELECT count(DISTINCT user) FROM marks"
        return int(self.one(query if self._user_ids is None else "SELECT count(*) FROM users"))

    def blocks(self, begin: int, size: int) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
        """Yield the marks from the ``begin``-th on, in blocks of about ``size`` of them.

        Each is the number of marks up to its end, and lists of (event, bucket, ids).
        """
        total = self.one("SELECT count(*) FROM marks")
        events = dict(self.connection.execute("SELECT number, event FROM events").fetchall())
        ids: list[Any] = []
        of_part = -1
        while begin < total:
            end = min(begin + size, total)
            groups = self.connection.execute(
                "SELECT part, event, bucket, list(user - part * ?) FROM marks "
                "WHERE rowid >= ? AND rowid < ? "
                "GROUP BY part, event, bucket ORDER BY part, event, bucket",
                [_USERS_OF_A_PART, begin, end],
            ).fetchall()
            block = []
            for part, event, bucket, users in groups:
                if self._user_ids is not None:
                    if part != of_part:
                        ids, of_part = self._ids_of(part), part
                    block.append((events[event], bucket, list(map(ids.__getitem__, users))))
                else:
                    block.append((events[event], bucket, users))
            yield end, block
            begin = end

    def probes(self, done: int, block: int) -> list[tuple[str, int, list[Any]]]:
        """Return some of the first ``done`` marks, as (event, bucket, ids).

        Arguments:
            done: how many marks.
            block: how many of them were sent last; of these, there are as many as of all.
        """
        first = max(0, done - block)
        rowids = {n * (done - 1) // _PROBES for n in range(_PROBES)}
        rowids |= {first + n * (done - 1 - first) // _PROBES for n in range(_PROBES + 1)}
        users = (
            ("", "user")
            if self._user_ids is None
            else ("JOIN users ON marks.user = users.number", "users.user_id")
        )
        return self.connection.execute(
            f"SELECT events.event, bucket, list({users[1]}) FROM marks "
            f"JOIN events ON marks.event = events.number {users[0]} "
            f"WHERE marks.rowid IN ({', '.join(map(str, sorted(rowids)))}) GROUP BY ALL"
        ).fetchall()

    def _ids_of(self, part: int) -> list[Any]:
        """Return the ids of the users of a part."""
        first = part * _USERS_OF_A_PART
        rows = self.connection.execute(
            "SELECT user_id FROM users WHERE number >= ? AND number < ? ORDER BY number",
            [first, first + _USERS_OF_A_PART],
        ).fetchall()
        return [row[0] for row in rows]
