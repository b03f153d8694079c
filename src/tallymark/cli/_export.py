"""The command that exports bitmaps to a file."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from .._core.batches import Batch
from .._core.untrusted import escaped
from ._batch_files import STDOUT, file_format, opened
from ._errors import NO, warn
from ._invocation import Run
from ._periods import moment_of
from ._writing import counted

__all__ = ["export"]

#: How many skipped keys are named.
_NAMED: Final = 10

#: How many seconds are between two states of the line that shows the progress.
_BETWEEN: Final = 0.2

_Granularities = list[Literal["hour", "day", "week", "month", "year", "unique"]]


def export(
    file: str,
    /,
    *,
    event: Annotated[list[str] | None, Parameter(help="only this event; may be repeated")] = None,
    granularity: Annotated[
        _Granularities | None,
        Parameter(help="only hour, day, week, month, year or unique; may be repeated"),
    ] = None,
    since: Annotated[str | None, Parameter(help="only periods that end after this")] = None,
    until: Annotated[str | None, Parameter(help="only periods that begin before this")] = None,
    format_: Annotated[
        Literal["csv", "ndjson", "parquet"] | None,
        Parameter(name="--format", help="the format; by default, the ending of the name says it"),
    ] = None,
    run: Run,
) -> int:
    """Write the users of every bitmap to a file: a backup. Asks before it replaces a file.

    One row for each user of a bitmap: event, granularity, period, user_id.
    tallymark import --preset tallymark FILE brings them back. With --since or --until, flags are
    left out, unless --granularity unique is given.

    For example:

      tallymark export backup.parquet
      tallymark export orders.csv.gz --event order --since 2026-01-01
      tallymark export - --format ndjson --granularity day | jq .user_id

    Arguments:
        file: .parquet, .csv, .ndjson or .jsonl, the last three with .gz too; - is the standard
            output
    """
    kind, compressed = file_format(file, format_)
    if file != STDOUT and Path(file).exists() and not run.confirm(f"replace {file}"):
        return NO
    skipped: list[str] = []

    def on_skip(key: str, reason: str) -> None:
        skipped.append(key)
        if len(skipped) <= _NAMED:
            warn(f"{key} is not exported: {reason}")

    with run.tally() as tally:
        now = tally.backend.context.local(None)
        batches = tally.export(
            event,
            granularities=granularity,
            since=None if since is None else moment_of("--since", since, now),
            until=None if until is None else moment_of("--until", until, now),
            on_skip=on_skip,
        )
        kind_of_ids = tally.backend.context.options.user_ids
        progress = _Progress(shown=file != STDOUT and sys.stderr.isatty())
        with (
            contextlib.closing(batches),
            progress,
            opened(file, kind, kind_of_ids, compressed=compressed) as writer,
        ):
            for batch in batches:
                writer.write(batch)
                progress.add(batch)
    if len(skipped) > _NAMED:
        warn(f"{len(skipped):,} keys are not exported")
    if file != STDOUT:
        size = Path(file).stat().st_size
        run.output.answer(
            {**progress.counts(), "skipped": len(skipped), "bytes": size},
            f"{counted(progress.rows, 'row')} of {counted(progress.bitmaps, 'bitmap')} of "
            f"{counted(progress.events, 'event')}",
        )
    return 0


class _Progress:
    """Counts what is exported, and shows it on a line of the terminal.

    Attributes:
        rows, bitmaps, events: how many.
    """

    def __init__(self, *, shown: bool) -> None:
        """Begin.

        Arguments:
            shown: whether to show anything.
        """
        self._shown = shown
        self._begun = self._last = time.monotonic()
        self._bitmap: Any = None
        self.rows = self.bitmaps = self.events = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201

    def add(self, batch: Batch[Any]) -> None:
        """Count a batch; they come in the order of an export."""
        self.rows += len(batch)
        bitmap = batch.event, batch.granularity, batch.period
        if bitmap != self._bitmap:
            self.bitmaps += 1
            self.events += self._bitmap is None or self._bitmap[0] != batch.event
            self._bitmap = bitmap
        if self._shown and time.monotonic() - self._last >= _BETWEEN:
            self._last = time.monotonic()
            rate = self.rows / (self._last - self._begun)
            name = escaped(batch.event, 30)
            print(  # noqa: T201
                f"\r{self.rows:,} rows, {rate:,.0f} rows/s: {name}\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def counts(self) -> dict[str, int]:
        """Return what was counted."""
        return {"rows": self.rows, "bitmaps": self.bitmaps, "events": self.events}
