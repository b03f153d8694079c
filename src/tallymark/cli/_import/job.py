"""One import from the first to the last step: reading, grouping, marking; and its folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import duckdb

from ..._core.options import switches
from ..._core.user_ids import id_type
from .._errors import UsageError, warn
from .expressions import Rules
from .fields import parse_map
from .presets import PRESETS
from .progress import Progress
from .readers import Layout, problem
from .rejects import check_is_no_source, check_rejects_file, reasons, write_rejects
from .rows import RowMapping
from .sources import Source, find_sources, is_stream
from .staging import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..._core.urls import StoreAddress

__all__ = ["Import", "ImportOptions", "Summary", "described_reasons", "store_name"]

#: How many marks are fetched at once, some 30 MB; after each block, the import can go on there.
_BLOCK: Final = 200_000

#: From so many users on, a group is a call of `mark_many`; smaller ones are rows of one call of
#: `mark_rows`. Measured, in microseconds of CPU time of both sides for a mark: with 9 users in a
#: group 48 and 19, with 220 users 8.2 and 8.5, with 1,100 users 2.4 and 3.3.
_MANY: Final = 200

_EPOCH: Final = datetime(1970, 1, 1)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()

#: How many days the folder of an import that was interrupted stays.
_KEPT_DAYS: Final = 30

#: The names of the folders of imports.
_WORKING_FOLDER: Final = re.compile(r"[0-9a-f]{20}|tallymark-import-\w+")

#: How the memory of DuckDB is written.
_MEMORY: Final = re.compile(r"\d+(\.\d+)?\s*[KMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True)
class ImportOptions:
    """What to import, and how; the same options go on with an import that was interrupted.

    Attributes:
        files: names of files, patterns, pipes, and ``-``.
        format: the format of all files; ``None`` to go by their extensions.
        preset: the name of a preset; ``None`` for none.
        maps: the arguments of ``--map``.
        path_events: the arguments of ``--path-event``.
        where: a condition in SQL; ``None`` for all rows.
        timezone: the time zone of times without one; ``None`` for the preset's, or the tally's.
        time_format: the format of times, as in ``strptime``; ``None`` for those that are
            recognised.
        layout: how files are written.
        hourly: whether to mark hours; ``None`` for the tally's option.
        unique: whether to set the bits without a date; ``None`` for the tally's option.
    """

    files: tuple[str, ...]
    format: str | None = None
    preset: str | None = None
    maps: tuple[str, ...] = ()
    path_events: tuple[str, ...] = ()
    where: str | None = None
    timezone: str | None = None
    time_format: str | None = None
    layout: Layout = Layout()  # noqa: RUF009 - it is frozen
    hourly: bool | None = None
    unique: bool | None = None


@dataclass
class Summary:
    """What an import has done.

    Attributes:
        rows: how many rows the files have.
        skipped: how many of them are no events, or do not fulfil the condition.
        rejected: how many could not be imported, by reason.
        marks: how many different marks of a user, an event and an hour or a day there are.
        users: how many users.
        events: the number of marks of each event.
        first, last: the first and the last day or hour; ``None`` without marks.
        is_sent: whether the marks were sent.
        new: how many bits were set that were not set before, by granularity.
        seconds: how long it took, without the time before an interruption.
    """

    rows: int = 0
    skipped: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    marks: int = 0
    users: int = 0
    events: dict[str, int] = field(default_factory=dict)
    first: date | None = None
    last: date | None = None
    is_sent: bool = True
    new: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class _TooLittleMemoryError(UsageError):
    """DuckDB needs more memory."""


class Import:
    """An import into a tally."""

    def __init__(
        self,
        tally: Any,
        options: ImportOptions,
        *,
        target: str | None = None,
        anew: bool = False,
        memory: str = "512MB",
        folder: Path | None = None,
        rejects: Path | None = None,
        max_rejects: int | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Check the options.

        Arguments:
            tally: a blocking tally.
            options: what to import.
            target: names the store and the database in it; with ``None``, the import cannot go on
                if it was interrupted.
            anew: whether to begin an import again that was interrupted.
            memory: how much memory DuckDB may use.
            folder: for the rows in between; ``None`` for one in the user's cache.
            rejects: the file for rejected rows; ``None`` for none.
            max_rejects: how many rows may be rejected; more, and nothing is sent; ``None`` for
                any number.
            dry_run: whether to send nothing at all.
            progress: shows how far it is.

        Raises:
            UsageError: the options are not allowed.
        """
        schema = tally.backend.context.schema
        self._tally = tally
        self._options = options
        self._target = None if target is None else f"{target} {schema.stored} {schema.prefix}"
        self._anew = anew
        self._memory = memory
        self._folder = folder
        self._rejects = rejects
        self._max_rejects = max_rejects
        self._dry_run = dry_run
        self._progress = progress or Progress(shown=False)
        if rejects is not None:
            check_rejects_file(rejects)
        if not options.files:
            raise UsageError("which files? - is the standard input")
        if _MEMORY.fullmatch(memory) is None:
            raise UsageError(f"--memory is such as 512MB or 2GB, got {memory!r}")
        self._mapping = _mapping(options)
        self._rules = _rules(tally, options, self._mapping)

    def run(self) -> Summary:
        """Import, and return what was done.

        Raises:
            UsageError: the input is not allowed; nothing was sent.
            StoreError: the store has failed; the same import goes on from there.
        """
        begun = time.monotonic()
        if not self._dry_run:  # before the rows are read, which may take long
            self._tally.count(self._tally.unique("tallymark"))
        with self._working_folder() as folder, self._own_files(folder) as own:
            sources = self._sources(own)
            with self._enough_memory():
                stage = self._stage(folder, sources)
            try:
                with self._enough_memory():
                    summary = self._staged(stage, sources)
                if summary.is_sent:
                    self._mark(stage, summary)
            except _TooLittleMemoryError:
                raise  # with more, the import goes on
            except UsageError:
                stage.close()
                _clear(folder)  # an import of better input has another folder
                raise
            except RuntimeError as error:
                # DuckDB's for Ctrl-C during a query; tallymark's are of classes of their own.
                if type(error) is RuntimeError and "interrupted" in str(error):
                    raise KeyboardInterrupt from None
                raise
            except duckdb.Error as error:
                raise UsageError(f"the rows cannot be grouped: {problem(error)}") from None
            finally:
                stage.close()
            _clear(folder)
        summary.seconds = time.monotonic() - begun
        return summary

    # --- folder

    @property
    def _can_resume(self) -> bool:
        is_repeatable = not any(map(is_stream, self._options.files))
        return is_repeatable and self._target is not None and not self._dry_run

    @contextlib.contextmanager
    def _working_folder(self) -> Iterator[Path]:
        """Yield the folder of the import, which stays if it is interrupted and can go on."""
        if not self._can_resume:
            with tempfile.TemporaryDirectory(
                prefix="tallymark-import-", dir=self._folder, ignore_cleanup_errors=True
            ) as name:
                yield Path(name)
            return
        parent = self._folder or _cache()
        _remove_old(parent)
        described = json.dumps([asdict(self._options), asdict(self._rules), self._target])
        folder = parent / hashlib.sha256(described.encode()).hexdigest()[:20]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # it has the rows
                folder.rmdir()

    @contextlib.contextmanager
    def _own_files(self, folder: Path) -> Iterator[Path]:
        """Yield a folder for the files that this process makes: unpacked, or from a pipe."""
        own = folder / f"files-{os.getpid()}"
        for each in folder.glob("files-*"):  # of processes that were killed
            if each == own or not _is_alive(int(each.name.removeprefix("files-"))):
                shutil.rmtree(each, ignore_errors=True)
        own.mkdir()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)

    @contextlib.contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise _TooLittleMemoryError(
                f"--memory {self._memory} is too little: {problem(error)}"
            ) from None

    def _sources(self, own: Path) -> list[Source]:
        preset = self._mapping.preset
        sources = find_sources(
            self._options.files,
            own,
            self._options.format,
            None if preset is None else preset.format,
        )
        if self._rejects is not None:
            check_is_no_source(self._rejects, sources)
        return sources

    def _stage(self, folder: Path, sources: Sequence[Source]) -> Stage:
        def opened() -> Stage:
            return Stage(folder, sources, memory=self._memory, user_ids=self._rules.user_ids)

        stage = opened()
        fingerprint = [source.fingerprint for source in sources]
        known = stage.get("sources")
        if known is not None and (self._anew or known != fingerprint):
            if not self._anew:
                warn("the files have changed since this import was interrupted: it begins anew")
            stage.close()
            _clear(folder)
            stage = opened()
        elif known is not None:
            sent = stage.get("marked", 0)
            warn(
                f"goes on with the import that was interrupted, behind {sent:,} marks; "
                "--anew begins it again"
            )
        stage.put(sources=fingerprint)
        return stage

    # --- steps

    def _staged(self, stage: Stage, sources: Sequence[Source]) -> Summary:
        """Read and group the rows, and write the rejected ones."""
        if not stage.get("is_grouped", default=False):
            megabytes = [source.size / 1e6 for source in sources]
            with self._progress.step("reading", sum(megabytes), "MB") as step:
                for number, size in enumerate(megabytes):
                    if stage.is_read(number):
                        step.begin_at(step.done + size)
                        continue
                    with step.query(stage.connection, size):
                        stage.read(number, self._rules, self._mapping, self._options.layout)
            with (
                self._progress.step("grouping", 1, "") as step,
                step.query(stage.connection, 1),
            ):
                stage.group()
        summary = self._summary(stage)
        if not summary.rows:
            names = ", ".join(source.name for source in sources[:5])
            raise UsageError(f"there are no rows in {names}")
        if self._rejects is not None:
            write_rejects(self._rejects, stage, sources)
        allowed = self._max_rejects is None or sum(summary.rejected.values()) <= self._max_rejects
        summary.is_sent = allowed and not self._dry_run
        return summary

    def _summary(self, stage: Stage) -> Summary:
        rows, skipped = stage.connection.execute(
            "SELECT coalesce(sum(rows), 0), coalesce(sum(skipped), 0) FROM files"
        ).fetchall()[0]
        marks, first, last = stage.connection.execute(
            "SELECT count(*), min(bucket), max(bucket) FROM marks"
        ).fetchall()[0]
        events = stage.connection.execute(
            "SELECT events.event, count(*) FROM marks JOIN events ON marks.event = events.number "
            "GROUP BY ALL ORDER BY count(*) DESC, 1"
        ).fetchall()
        return Summary(
            rows=int(rows),
            skipped=int(skipped),
            rejected=reasons(stage),
            marks=marks,
            users=stage.users(),
            events=dict(events),
            first=None if first is None else self._moment(first),
            last=None if last is None else self._moment(last),
        )

    def _mark(self, stage: Stage, summary: Summary) -> None:
        done = stage.get("marked", 0)
        if done and not self._are_there(stage.probes(done, _BLOCK)):
            warn("the store lacks marks that were sent: all marks are sent again")
            done = 0
            stage.put(marked=0, new={})
        new: Counter[str] = Counter(stage.get("new", {}))
        try:
            with self._progress.step("marking", summary.marks, "marks") as step:
                step.begin_at(done)
                for end, groups in stage.blocks(done, _BLOCK):
                    new += self._marked(groups)
                    done = end
                    stage.put(marked=done, new=new)
                    step.advance(done)
        except BaseException:
            if self._can_resume:
                warn(
                    f"{done:,} of {summary.marks:,} marks are sent; the same command goes on there"
                )
            raise
        summary.new = dict(new)

    def _are_there(self, groups: Iterable[tuple[str, int, list[Any]]]) -> bool:
        """Return whether the store has marks: it may have lost them since they were sent."""
        period = self._tally.hour if self._rules.hourly else self._tally.day
        return all(
            all(self._tally.contains_many(period(event, self._moment(bucket)), users))
            for event, bucket, users in groups
        )

    def _marked(self, groups: Iterable[tuple[str, int, list[Any]]]) -> Counter[str]:
        """Mark groups of users; return how many bits were new, by granularity."""
        tracked = {"track_hourly": self._options.hourly, "track_unique": self._options.unique}
        new: Counter[str] = Counter()
        rows: dict[str, list[Any]] = {"event": [], "user_id": [], "moment": []}
        for event, bucket, users in groups:
            moment = self._moment(bucket)
            if len(users) >= _MANY:
                counts = self._tally.mark_many(event, users, now=moment, **tracked)
                new.update({each.name: count for each, count in counts.items()})
            else:
                rows["event"] += [event] * len(users)
                rows["user_id"] += users
                rows["moment"] += [moment] * len(users)
        if rows["event"]:
            counts = self._tally.mark_rows(rows, **tracked)
            new.update({each.name: count for each, count in counts.items()})
        return new

    def _moment(self, bucket: int) -> date:
        """Return the hour or the day of a bucket."""
        if self._rules.hourly:
            return _EPOCH + timedelta(hours=bucket)
        return date.fromordinal(_EPOCH_DAY + bucket)


def described_reasons(rejected: dict[str, int]) -> str:
    """Return the reasons of rejected rows, with their numbers."""
    return "; ".join(f"{reason}: {count:,}" for reason, count in rejected.items())


def _mapping(options: ImportOptions) -> RowMapping:
    preset = None
    if options.preset is not None:
        preset = PRESETS.get(options.preset)
        if preset is None:
            raise UsageError(f"--preset is one of {', '.join(PRESETS)}, tallymark")
    path_events = []
    for argument in options.path_events:
        pattern, separator, event = argument.rpartition("=")
        if not (pattern and separator and event):
            raise UsageError(f"--path-event takes REGEX=EVENT, got {argument!r}")
        path_events.append((pattern, event))
    return RowMapping(
        parse_map(options.maps), tuple(path_events), options.where, preset, options.preset
    )


def _rules(tally: Any, options: ImportOptions, mapping: RowMapping) -> Rules:
    of_tally = tally.backend.context.options
    zone = getattr(of_tally.zone, "key", None) or str(of_tally.zone)
    preset = mapping.preset
    timed_by_preset = preset is not None and "time" not in mapping.fields
    preset_zone = preset.timezone if preset is not None and timed_by_preset else None
    preset_format = preset.time_format if preset is not None and timed_by_preset else None
    source_zone = options.timezone or preset_zone or zone
    _check_zone(zone)
    _check_zone(source_zone)
    hourly = options.hourly if options.hourly is not None else of_tally.track_hourly
    kind = of_tally.user_ids
    return Rules(
        user_ids=None if kind is None else id_type(kind).name,
        max_user_id=of_tally.max_user_id,
        max_event_bytes=of_tally.max_event_bytes,
        zone=zone,
        source_zone=source_zone,
        time_format=options.time_format or preset_format,
        hourly=switches.track_hourly if hourly is None else hourly,
    )


def _check_zone(name: str) -> None:
    try:
        is_known = name != "localtime"  # a file of some systems, of which DuckDB knows nothing
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        is_known = False
    if not is_known:
        raise UsageError(f"there is no time zone {name!r}")


def store_name(address: StoreAddress) -> str | None:
    """Return a name of a store and its database; ``None`` if it does not outlive the process."""
    if address.is_embedded:
        return None
    parts = (address.hosts, address.path, address.service, address.database)
    return f"{address.scheme} {parts}"


def _clear(folder: Path) -> None:
    """Remove the rows of an import."""
    for path in folder.glob("import.duckdb*"):
        path.unlink()
    shutil.rmtree(folder / "spilled", ignore_errors=True)


def _cache() -> Path:
    """Return the folder for the rows of imports."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "tallymark" / "imports"


def _remove_old(folder: Path) -> None:
    """Remove what is left of imports that were interrupted long ago, and nothing else."""
    oldest = time.time() - 86_400 * _KEPT_DAYS
    with contextlib.suppress(OSError):
        for each in folder.iterdir():
            if _WORKING_FOLDER.fullmatch(each.name) and each.stat().st_mtime < oldest:
                shutil.rmtree(each, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Return whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
