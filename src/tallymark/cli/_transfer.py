"""The commands that bring data in and out: thin, since the work is done elsewhere."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..errors import MissingExtraError
from ._errors import NO, UsageError, warn
from ._invocation import Run
from ._signals import ended_by_signals
from ._writing import counted, grouped

__all__ = ["import_"]

_LIST = Parameter(negative=(), consume_multiple=True)


def import_(
    *files: str,
    preset: str | None = None,
    map: Annotated[tuple[str, ...], _LIST] = (),  # noqa: A002
    path_event: Annotated[tuple[str, ...], _LIST] = (),
    where: str | None = None,
    source_timezone: str | None = None,
    time_format: str | None = None,
    hourly: bool = False,
    unique: bool = False,
    format: Literal["csv", "tsv", "ndjson", "json", "parquet", "text"] | None = None,  # noqa: A002
    delimiter: str | None = None,
    encoding: Literal["utf-8", "utf-16", "latin-1"] = "utf-8",
    no_header: bool = False,
    dry_run: bool = False,
    rejects: Path | None = None,
    max_rejects: int | None = None,
    memory: str = "512MB",
    folder: Path | None = None,
    anew: bool = False,
    quiet: bool = False,
    run: Run,
) -> int:
    """Mark the events of files: CSV, TSV, NDJSON, JSON or Parquet, also compressed.

    For example:

      tallymark import events.csv --map event=action user=user_id time=at
      tallymark import 'export/*.json.gz' --preset mixpanel --user-ids str
      zcat log.gz | tallymark import --preset nginx --path-event '^/pay$=pay'

    The same command may be repeated, and goes on where it was interrupted. The exit code is 1 if
    rows were rejected, unless --max-rejects allows them.

    Arguments:
        files: files, and patterns such as 'logs/*.ndjson.gz' (default: the standard input).
        preset: segment, rudderstack, mixpanel, amplitude, posthog, ga4, snowplow, nginx, matomo
            or heap; or tallymark: files of tallymark export, which are restored.
        map: event=COLUMN user=COLUMN time=COLUMN; ONE|OTHER, nested.key, 'constant', (SQL).
        path_event: REGEX=EVENT, the event of requests whose path matches (nginx).
        where: a condition in SQL on the columns: only these rows.
        source_timezone: of times without a zone (default: the preset's, or --timezone).
        time_format: of times, such as %d.%m.%Y %H:%M (default: recognised).
        hourly: also mark the hours.
        unique: also set the bits without a date: the flags.
        format: the format (default: by the extension).
        delimiter: between the columns of CSV (default: by the header).
        encoding: the encoding of texts.
        no_header: CSV without a header: columns are column1, column2 and so on.
        dry_run: count, and send nothing.
        rejects: write the rows that cannot be imported to this file, .ndjson or .csv.
        max_rejects: send nothing if more rows than these are rejected.
        memory: how much memory the grouping may take.
        folder: where rows are kept meanwhile (default: in the cache of the user).
        anew: do not go on where the same import was interrupted.
        quiet: show no progress.
    """
    try:
        from ._import.job import (  # noqa: PLC0415
            Import,
            ImportOptions,
            described_reasons,
            store_name,
        )
    except ImportError as error:
        if error.name != "duckdb":
            raise
        raise MissingExtraError(
            "imports need duckdb; run: pip install 'tallymark[import]'"
        ) from None
    files = files or ("-",)
    if preset == "tallymark":  # no events, but the bitmaps of an export
        from ._restore import check_options, restore_command  # noqa: PLC0415 - needs duckdb, too

        check_options(
            map=map,
            path_event=path_event,
            where=where,
            source_timezone=source_timezone,
            time_format=time_format,
            hourly=hourly,
            unique=unique,
            delimiter=delimiter,
            no_header=no_header,
            rejects=rejects,
            max_rejects=max_rejects,
        )
        with ended_by_signals():
            return restore_command(
                run, files, format, memory=memory, folder=folder, dry_run=dry_run, quiet=quiet
            )
    from ._import.progress import Progress  # noqa: PLC0415 - needs duckdb, too
    from ._import.readers import Layout  # noqa: PLC0415

    if max_rejects is not None and max_rejects < 0:
        raise UsageError("--max-rejects is 0 or more")
    options = ImportOptions(
        files,
        format,
        preset,
        map,
        path_event,
        where,
        source_timezone,
        time_format,
        Layout(encoding, delimiter, not no_header),
        hourly or None,
        unique or None,
    )
    with ended_by_signals(), run.tally() as tally:
        summary = Import(
            tally,
            options,
            target=store_name(run.store.url.address),
            anew=anew,
            memory=memory,
            folder=folder,
            rejects=rejects,
            max_rejects=max_rejects,
            dry_run=dry_run,
            progress=Progress(shown=not quiet),
        ).run()
    if dry_run and run.output.form == "table":
        rows = [{"event": event, "marks": count} for event, count in summary.events.items()]
        run.output.table(rows, "Events")
    rejected = sum(summary.rejected.values())
    more: dict[str, Any] = {}
    if run.output.form == "json":
        more = {"reasons": summary.rejected}
        if dry_run:
            more["by_event"] = summary.events
    answer: dict[str, Any] = {
        "rows": summary.rows,
        "skipped": summary.skipped,
        "rejected": rejected,
        "marks": summary.marks,
        "events": len(summary.events),
        "users": summary.users,
        "first": _shown(summary.first),
        "last": _shown(summary.last),
        "sent": summary.is_sent,
        "new": sum(summary.new.values()),
        "seconds": round(summary.seconds, 3),
        **more,
    }
    run.output.answer(answer, _described(answer, summary.new))
    if not rejected:
        return 0
    too_many = max_rejects is not None and rejected > max_rejects
    warn(
        f"{counted(rejected, 'row')} rejected"
        + (f", more than --max-rejects {max_rejects}, so nothing was sent" if too_many else "")
        + f": {described_reasons(summary.rejected)}"
        + (f"; they are in {rejects}" if rejects else "; --rejects FILE writes them to a file")
    )
    return 0 if max_rejects is not None and not too_many else NO


def _shown(moment: date | None) -> str | None:
    if isinstance(moment, datetime):
        return f"{moment:%Y-%m-%dT%H}"
    return None if moment is None else moment.isoformat()


def _described(answer: dict[str, Any], new: dict[str, int]) -> str:
    """Return the summary for people."""
    rows, users, events = (counted(answer[f"{unit}s"], unit) for unit in ("row", "user", "event"))
    left_out = (f"{grouped(answer[name])} {name}" for name in ("skipped", "rejected"))
    span = "" if answer["first"] is None else f", {answer['first']} to {answer['last']}"
    lines = [
        f"{rows}: {', '.join(left_out)}",
        f"{counted(answer['marks'], 'mark')} of {users} and {events}{span}",
    ]
    if answer["sent"]:
        bits = ", ".join(f"{name.lower()} {grouped(count)}" for name, count in new.items() if count)
        lines.append(f"new bits: {bits or 'none'}")
    else:
        lines.append("nothing was sent")
    rate = answer["rows"] / max(answer["seconds"], 0.001)
    lines.append(f"{answer['seconds']:.1f} s, {grouped(round(rate))} rows/s")
    return "\n".join(lines)
