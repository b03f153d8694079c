"""SQL expressions: the time, the user and the event of a row, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from .fields import text
from .zones import UTC, local_to_utc, utc_to_local

__all__ = ["ID_TYPES", "SKIPPED", "Rules"]

#: The SQL type of users' ids, by the name of their type; ``None`` for offsets.
ID_TYPES: Final[dict[str | None, str]] = {
    None: "BIGINT",
    "int": "BIGINT",
    "uuid": "UUID",
    "str": "VARCHAR",
    "bytes": "BLOB",
}

#: The reason of rows that are left out on purpose.
SKIPPED: Final = ""

#: From here on, a number is in a thousandth of the unit. In each unit, the same times have
#: numbers in its range: those from 26 April 1970 to 20 November 2286.
_SECONDS: Final = "1e10"
_MILLISECONDS: Final = "1e13"
_MICROSECONDS: Final = "1e16"
_NANOSECONDS: Final = "1e19"

_NUMBERS: Final = frozenset(
    [
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
        "FLOAT",
        "DOUBLE",
    ]
)
_NAIVE: Final = frozenset(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"))
_AWARE: Final = "TIMESTAMP WITH TIME ZONE"

#: Numbers that are days or seconds in digits, such as 20260105 and 20260105130700.
_COMPACT: Final = ((19_000_000, 20_999_999), (19_000_000_000_000, 20_999_999_999_999))

#: The zone at the end of a text: an offset of less than a day, or UTC. DuckDB also takes names of
#: zones, and offsets of several days.
_DIGIT: Final = r"\d"
_ZONE: Final = r" ?([zZ]|UTC|GMT|[+-]([01]\d|2[0-3])(:?[0-5]\d(:?[0-5]\d)?)?)$"

#: Notations of ISO 8601 that DuckDB does not read: the basic one, hours without minutes, and days
#: with a zone.
_RARE: Final = (
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)", r"\1-\2-\3T\4:\5:"),
    (r"^(\d{4}-\d\d-\d\dT\d\d:\d\d):([^\d]|$)", r"\1\2"),
    (r"^(\d{4}-\d\d-\d\d[T ]\d\d)($|" + _ZONE[:-1] + "$)", r"\1:00\2"),
    (r"^(\d{4}-\d\d-\d\d)(" + _ZONE[:-1] + ")$", r"\1T00:00\2"),
)

_LONGEST_ID: Final = 1024


def _from_iso(value: str, kinds: _Kinds) -> str:
    """Return a TIMESTAMP of a text in ISO 8601."""
    # DuckDB reads neither z for Z, nor GMT, nor a space before an offset.
    tidied = f"replace(replace({value}, 'z', 'Z'), 'GMT', 'UTC')"
    tidied = f"regexp_replace({tidied}, ' ([+-])', '\\1')"
    return (
        f"CASE WHEN regexp_matches(substr({value}, 12), '[A-Za-z+-]') "
        f"THEN CASE WHEN regexp_matches({value}, {text(_DIGIT + _ZONE)}) "
        f"THEN {kinds.in_utc(f'CAST(TRY_CAST({tidied} AS TIMESTAMPTZ) AS TIMESTAMP)')} END "
        f"ELSE {kinds.on_clock(f'TRY_CAST({value} AS TIMESTAMP)')} END"
    )


def _compact(value: str) -> str:
    """Return a TIMESTAMP of a text of 8 or 14 digits."""
    value = f"split_part({value}, '.', 1)"
    return f"coalesce(try_strptime({value}, '%Y%m%d'), try_strptime({value}, '%Y%m%d%H%M%S'))"


def _from_number(value: str) -> str:
    """Return a TIMESTAMP in UTC of a number."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    microseconds = (
        f"CASE WHEN abs({number}) < {_SECONDS} THEN {number} * 1e6 "
        f"WHEN abs({number}) < {_MILLISECONDS} THEN {number} * 1e3 "
        f"WHEN abs({number}) < {_MICROSECONDS} THEN {number} "
        f"WHEN abs({number}) < {_NANOSECONDS} THEN {number} / 1e3 END"
    )
    return f"try(make_timestamp(CAST(floor({microseconds}) AS BIGINT)))"


class _Kinds(NamedTuple):
    """Which times are wanted: templates of SQL for those in UTC, and for those without a zone."""

    utc: str
    wall: str

    def in_utc(self, sql: str) -> str:
        """Return SQL for a time in UTC."""
        return self.utc.replace("{}", sql)

    def on_clock(self, sql: str) -> str:
        """Return SQL for a time without a zone."""
        return self.wall.replace("{}", sql)


@dataclass(frozen=True)
class Rules:
    """What the rows of an import have to be, as SQL.

    Attributes:
        user_ids: the name of the type of ids; ``None`` for offsets.
        max_user_id: the highest offset.
        max_event_bytes: the longest name of an event; ``None`` for no limit.
        zone: the tally's time zone.
        source_zone: the zone of times without one.
        time_format: the format of times, as in ``strptime``; ``None`` to recognise it.
        hourly: whether hours are marked, beside days.
    """

    user_ids: str | None
    max_user_id: int
    max_event_bytes: int | None
    zone: str
    source_zone: str
    time_format: str | None
    hourly: bool

    # --- times

    def with_local_time(self, rows: str, value: str, trimmed: str, kind: str) -> str:
        """Return rows with the column ``__tm_local``, in the tally's zone; NULL if it is no time.

        Arguments:
            rows: a query.
            value: the column with the time.
            trimmed: the column with its text.
            kind: the SQL type of the time.
        """
        if self.zone in UTC and self.source_zone in UTC:
            local = self._time(value, trimmed, kind, _Kinds(utc="{}", wall="{}"))
            return f"SELECT *, {local} AS __tm_local FROM ({rows})"
        # In queries of their own: the conversions compare a column with many times.
        utc = self._time(value, trimmed, kind, _Kinds(utc="{}", wall="NULL"))
        wall = self._time(value, trimmed, kind, _Kinds(utc="NULL", wall="{}"))
        rows = (
            f"SELECT *, CAST({utc} AS TIMESTAMP) AS __tm_utc, "
            f"CAST({wall} AS TIMESTAMP) AS __tm_wall FROM ({rows})"
        )
        if self.source_zone == self.zone:
            there = "__tm_wall"
        else:
            converted = local_to_utc("__tm_wall", self.source_zone)
            rows = (
                f"SELECT * EXCLUDE (__tm_utc), coalesce(__tm_utc, {converted}) AS __tm_utc "
                f"FROM ({rows})"
            )
            there = "NULL"
        local = f"coalesce({there}, {utc_to_local('__tm_utc', self.zone)})"
        return f"SELECT *, {local} AS __tm_local FROM ({rows})"

    def _time(self, value: str, trimmed: str, kind: str, kinds: _Kinds) -> str:
        """Return a TIMESTAMP of a time, in UTC or without a zone, as ``kinds`` wants."""
        if kind == _AWARE:
            return kinds.in_utc(f"CAST({value} AS TIMESTAMP)")  # the session's time zone is UTC
        if kind in _NAIVE:
            return kinds.on_clock(f"CAST({value} AS TIMESTAMP)")
        if kind in _NUMBERS or kind.startswith("DECIMAL"):
            whole = f"TRY_CAST({value} AS BIGINT)"
            ranges = " OR ".join(f"{whole} BETWEEN {low} AND {high}" for low, high in _COMPACT)
            return (
                f"CASE WHEN {value} = {whole} AND ({ranges}) "
                f"THEN {kinds.on_clock(_compact(f'CAST({whole} AS VARCHAR)'))} "
                f"ELSE {kinds.in_utc(_from_number(value))} END"
            )
        return self._from_text(trimmed, kinds)

    def _from_text(self, value: str, kinds: _Kinds) -> str:
        if self.time_format is not None:
            parsed = f"try_strptime({value}, {text(self.time_format)})"
            has_zone = "%z" in self.time_format or "%Z" in self.time_format
            as_utc = kinds.in_utc(f"CAST({parsed} AS TIMESTAMP)")
            return as_utc if has_zone else kinds.on_clock(parsed)
        # What is rare, in the notation that DuckDB reads.
        rare = value
        for pattern, replacement in _RARE:
            rare = f"regexp_replace({rare}, {text(pattern)}, {text(replacement)})"
        return (
            f"CASE WHEN substr({value}, 5, 1) = '-' AND "
            f"(substr({value}, 14, 1) = ':' AND substr({value}, 11, 1) NOT IN ('+', '-') "
            f"OR length({value}) <= 10) "
            # Most have a Z behind a digit. Without the zone, it takes two fifths of the time.
            f"THEN CASE WHEN ends_with({value}, 'Z') AND right({value}, 2) BETWEEN '0Z' AND '9Z' "
            f"THEN {kinds.in_utc(f'TRY_CAST({value} AS TIMESTAMP)')} "
            f"ELSE {_from_iso(value, kinds)} END "
            f"WHEN regexp_full_match({value}, '(19|20)(\\d{{6}}|\\d{{12}})(\\.0*)?') "
            f"THEN {kinds.on_clock(_compact(value))} "
            f"WHEN regexp_full_match({value}, '[+-]?\\d+(\\.\\d*)?([eE][+]?\\d+)?') "
            f"THEN {kinds.in_utc(_from_number(value))} "
            f"WHEN regexp_matches({value}, '^\\d{{4}}(-|\\d{{4}}T)') "
            f"THEN {_from_iso(rare, kinds)} END"
        )

    def bucket(self, local: str) -> str:
        """Return the hours, or the days, from the beginning of 1970 to a local time."""
        unit = "hour" if self.hourly else "day"
        return f"CAST(date_diff('{unit}', TIMESTAMP '1970-01-01', {local}) AS INTEGER)"

    # --- users

    def user_id(self, value: str) -> str:
        """Return the id that a text stands for; NULL if there is none of this type."""
        if self.user_ids == "str":
            return value
        value = f"trim({value})"
        if self.user_ids == "uuid":
            return f"TRY_CAST({value} AS UUID)"
        if self.user_ids == "bytes":
            digits = f"regexp_full_match({value}, '([0-9a-fA-F]{{2}})+')"
            return f"CASE WHEN {digits} THEN unhex({value}) END"
        return (
            f"CASE WHEN regexp_full_match({value}, '[+-]?\\d+(\\.0*)?') "
            f"THEN TRY_CAST(split_part({value}, '.', 1) AS BIGINT) END"
        )

    def _wrong_user(self, user_text: str, user_id: str) -> str:
        if self.user_ids in {"str", "bytes"}:
            size = f"strlen({user_id})" if self.user_ids == "str" else f"octet_length({user_id})"
            too_long = f"WHEN {size} > {_LONGEST_ID} THEN 'user id longer than {_LONGEST_ID} bytes'"
            if self.user_ids == "str":
                return too_long
            return f"WHEN {user_id} IS NULL THEN 'user id is not hexadecimal' {too_long}"
        if self.user_ids == "uuid":
            return f"WHEN {user_id} IS NULL THEN 'user id is no UUID'"
        digits = f"regexp_full_match(trim({user_text}), '[+-]?\\d+(\\.0*)?')"
        high = self.max_user_id if self.user_ids is None else 2**63 - 1
        outside = f"{user_id} IS NULL" + (
            f" OR {user_id} NOT BETWEEN 0 AND {high}" if self.user_ids is None else ""
        )
        least = "0" if self.user_ids is None else "-2**63"
        return (
            f"WHEN NOT {digits} THEN 'user id is no whole number' "
            f"WHEN {outside} THEN 'user id is not from {least} to {high}'"
        )

    # --- what is wrong

    def reason(self, compound: str, *, skips_incomplete: bool) -> str:
        """Return why a row is left out: `SKIPPED` or a text; NULL if it is not.

        The row has the columns ``__tm_malformed``, ``__tm_keep``, ``__tm_event``, ``__tm_user``,
        ``__tm_user_id``, ``__tm_time_text`` and ``__tm_local``.

        Arguments:
            compound: conditions for values that are objects or lists, as of ``CASE``.
            skips_incomplete: as in `Preset`.
        """
        skipped = f"'{SKIPPED}'"
        no_event, no_user = (
            (skipped, skipped) if skips_incomplete else ("'no event'", "'no user id'")
        )
        longest = (
            ""
            if self.max_event_bytes is None
            else f"WHEN strlen(__tm_event) > {self.max_event_bytes} "
            f"THEN 'event longer than {self.max_event_bytes} bytes' "
        )
        return (
            "CASE WHEN __tm_malformed IS NOT NULL THEN __tm_malformed "
            f"WHEN NOT coalesce(__tm_keep, false) THEN {skipped} {compound}"
            f"WHEN __tm_event IS NULL OR __tm_event = '' THEN {no_event} "
            f"WHEN __tm_user IS NULL OR trim(__tm_user) = '' THEN {no_user} "
            "WHEN regexp_matches(__tm_event, '\\p{Cc}') THEN 'control character in the event' "
            f"{longest}{self._wrong_user('__tm_user', '__tm_user_id')} "
            "WHEN __tm_time_text IS NULL OR __tm_time_text = '' THEN 'no time' "
            "WHEN __tm_local IS NULL THEN 'time not readable' "
            "WHEN NOT isfinite(__tm_local) OR year(__tm_local) NOT BETWEEN 1 AND 9999 "
            "THEN 'time not in the years 1 to 9999' END"
        )
