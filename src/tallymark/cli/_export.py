"""The command that exports bitmaps to a file."""

import contextlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from .._core.batches import Batch
from ._batch_files import STDOUT, file_format, opened
from ._errors import NO, warn
from ._invocation import Run
from ._periods import moment_of
from ._row_progress import RowProgress
from ._writing import counted

__all__ = ["export"]

#: How many skipped keys are named.
_NAMED: Final = 10

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
            warn(f"not everything of {key} is exported: {reason}")

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
        counter = _Counter()
        with (
            contextlib.closing(batches),
            RowProgress(shown=file != STDOUT) as progress,
            opened(file, kind, kind_of_ids, compressed=compressed) as writer,
        ):
            for batch in batches:
                writer.write(batch)
                counter.add(batch)
                progress.show(counter.rows, batch.event)
    if len(skipped) > _NAMED:
        warn(f"{len(skipped):,} keys are not exported, or not whole")
    if file != STDOUT:
        numbers = {"rows": counter.rows, "bitmaps": counter.bitmaps, "events": counter.events}
        run.output.answer(
            {**numbers, "skipped": len(skipped), "bytes": Path(file).stat().st_size},
            " of ".join(counted(number, unit[:-1]) for unit, number in numbers.items()),
        )
    return 0


class _Counter:
    """Counts what is exported.

    Attributes:
        rows, bitmaps, events: how many.
    """

    def __init__(self) -> None:
        self._bitmap: Any = None
        self.rows = self.bitmaps = self.events = 0

    def add(self, batch: Batch[Any]) -> None:
        """Count a batch; they come in the order of an export."""
        self.rows += len(batch)
        bitmap = batch.event, batch.granularity, batch.period
        if bitmap != self._bitmap:
            self.bitmaps += 1
            self.events += self._bitmap is None or self._bitmap[0] != batch.event
            self._bitmap = bitmap
