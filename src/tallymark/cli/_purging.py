"""The commands that delete what is old, now or in future."""

from typing import Annotated, Literal

from cyclopts import Parameter

from .._core.untrusted import escaped
from .._reports.health.checks import in_bytes
from ._errors import NO, UsageError
from ._invocation import Run
from ._periods import moment_of
from ._writing import counted

__all__ = ["apply_expiry", "delete_before"]

_DryRun = Annotated[bool, Parameter(help="change nothing, but print what would be changed")]


def delete_before(
    moment: str,
    /,
    *,
    granularity: Annotated[
        list[Literal["hour", "day", "week", "month", "year"]] | None,
        Parameter(help="only hour, day, week, month or year; may be repeated"),
    ] = None,
    event: Annotated[list[str] | None, Parameter(help="only this event; may be repeated")] = None,
    dry_run: _DryRun = False,
    run: Run,
) -> int:
    """Delete the bitmaps whose period ended before a moment. Scans all keys. Asks before.

    Flags stay. Without the days of a month, the month still answers.

    For example:

      tallymark delete-before 2025-01-01 --dry-run
      tallymark delete-before 2026-01-01 --granularity hour --granularity day

    Arguments:
        moment: a date, or a date and a time; a period that contains it stays
    """
    with run.tally() as tally:
        end = moment_of("MOMENT", moment, tally.backend.context.local(None))
        arguments = {"events": event, "granularities": granularity or None}
        if not (run.yes or dry_run):
            found = tally.delete_before(end, **arguments, dry_run=True)
            size = in_bytes(found.total_bytes)
            question = f"delete {counted(found.total, 'bitmap')} of {size} from before {moment}"
            if found.total and not run.confirm(question):
                return NO
        found = tally.delete_before(end, **arguments, dry_run=dry_run)
    rows = found.to_rows()
    if rows:
        run.output.table(rows, f"Bitmaps from before {moment}")
    else:
        text = f"no bitmap is from before {escaped(moment)}"
        run.output.answer([], text, ["granularity", "bitmaps", "bytes"])
    return 0


def apply_expiry(*, dry_run: _DryRun = False, run: Run) -> int:
    """Set the expiry of --expire on all bitmaps that exist. Scans all keys. Asks before.

    Marks set it only on the bitmaps that they change. What would have expired already is deleted.

    For example:

      tallymark apply-expiry --expire hour=7d --expire day=400d --dry-run
    """
    if "expire" not in run.store.options:
        raise UsageError("which expiry? Give --expire, such as --expire day=400d")
    with run.tally() as tally:
        if not (run.yes or dry_run):
            planned = tally.apply_expiry(dry_run=True)
            changed, deleted = sum(planned.changed.values()), sum(planned.deleted.values())
            question = f"set the expiry of {counted(changed, 'bitmap')}, and delete {deleted}"
            if changed + deleted and not run.confirm(question):
                return NO
        applied = tally.apply_expiry(dry_run=dry_run)
    rows = applied.to_rows()
    if rows:
        run.output.table(rows, "Expiry of bitmaps")
    else:
        text = "there are no bitmaps of these granularities"
        run.output.answer([], text, ["granularity", "changed", "deleted", "unchanged"])
    return 0
