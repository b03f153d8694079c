"""SQL expressions: the time, the user and the event of a row, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .fields import text

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

_UTC: Final = frozenset(("UTC", "Etc/UTC"))

_LONGEST_ID: Final = 1024


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

    def local_time(self, value: str, trimmed: str, kind: str) -> str:
        """Return a TIMESTAMP in the tally's time zone; NULL if the value is no time.

        Arguments:
            value: an expression.
            trimmed: the column with its text.
            kind: its SQL type.
        """
        if kind == _AWARE:
            return self._from_aware(value)
        if kind in _NAIVE:
            return self._from_naive(f"CAST({value} AS TIMESTAMP)")
        if kind in _NUMBERS or kind.startswith("DECIMAL"):
            return self._from_number(value)
        return self._from_text(trimmed)

    def _from_text(self, value: str) -> str:
        if self.time_format is not None:
            parsed = f"try_strptime({value}, {text(self.time_format)})"
            has_zone = "%z" in self.time_format or "%Z" in self.time_format
            return self._from_aware(parsed) if has_zone else self._from_naive(parsed)
        # DuckDB reads neither z for Z, nor a space before an offset.
        tidied = f"regexp_replace(replace({value}, 'z', 'Z'), ' ([+-])', '\\1')"
        aware = f"TRY_CAST({tidied} AS TIMESTAMPTZ)"
        compact = (
            f"coalesce(try_strptime({value}, '%Y%m%d'), try_strptime({value}, '%Y%m%d%H%M%S'))"
        )
        return (
            f"CASE WHEN substr({value}, 5, 1) = '-' "
            f"THEN CASE WHEN ends_with({value}, 'Z') "  # most have it, and need no more
            f"THEN {self._from_aware(f'TRY_CAST({value} AS TIMESTAMPTZ)')} "
            f"WHEN regexp_matches(substr({value}, 12), '[A-Za-z+-]') "
            f"THEN {self._from_aware(aware)} "
            f"ELSE {self._from_naive(f'TRY_CAST({value} AS TIMESTAMP)')} END "
            f"WHEN regexp_full_match({value}, '(19|20)(\\d{{6}}|\\d{{12}})') "
            f"THEN {self._from_naive(compact)} "
            f"WHEN regexp_full_match({value}, '[+-]?\\d+(\\.\\d*)?([eE][+]?\\d+)?') "
            f"THEN {self._from_number(value)} END"
        )

    def _from_number(self, value: str) -> str:
        number = f"TRY_CAST({value} AS DOUBLE)"
        microseconds = (
            f"CASE WHEN abs({number}) < {_SECONDS} THEN {number} * 1e6 "
            f"WHEN abs({number}) < {_MILLISECONDS} THEN {number} * 1e3 "
            f"WHEN abs({number}) < {_MICROSECONDS} THEN {number} "
            f"WHEN abs({number}) < {_NANOSECONDS} THEN {number} / 1e3 END"
        )
        return self._from_utc(f"try(make_timestamp(CAST(floor({microseconds}) AS BIGINT)))")

    def _from_aware(self, value: str) -> str:
        if self.zone in _UTC:
            return f"CAST({value} AS TIMESTAMP)"  # the session's time zone is UTC
        return f"timezone({text(self.zone)}, {value})"

    def _from_utc(self, value: str) -> str:
        return value if self.zone in _UTC else self._from_aware(f"timezone('UTC', {value})")

    def _from_naive(self, value: str) -> str:
        if self.source_zone == self.zone:
            return value
        if self.source_zone in _UTC:
            return self._from_utc(value)
        zone = text(self.source_zone)
        # Of two moments with the same wall time, DuckDB takes the later one, and datetime the
        # earlier one, as marks do.
        later = f"timezone({zone}, {value})"
        earlier = f"{later} - INTERVAL 1 HOUR"
        moment = f"CASE WHEN timezone({zone}, {earlier}) = {value} THEN {earlier} ELSE {later} END"
        return self._from_aware(moment)

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

    def reason(self, *, skips_incomplete: bool) -> str:
        """Return why a row is left out: `SKIPPED` or a text; NULL if it is not.

        The row has the columns ``__malformed``, ``__keep``, ``__event``, ``__user``, ``__user_id``,
        ``__time_text`` and ``__local``.

        Arguments:
            skips_incomplete: as in `Preset`.
        """
        skipped = f"'{SKIPPED}'"
        no_event, no_user = (
            (skipped, skipped) if skips_incomplete else ("'no event'", "'no user id'")
        )
        longest = (
            ""
            if self.max_event_bytes is None
            else f"WHEN strlen(__event) > {self.max_event_bytes} "
            f"THEN 'event longer than {self.max_event_bytes} bytes' "
        )
        return (
            "CASE WHEN __malformed IS NOT NULL THEN __malformed "
            f"WHEN NOT coalesce(__keep, false) THEN {skipped} "
            f"WHEN __event IS NULL OR __event = '' THEN {no_event} "
            f"WHEN __user IS NULL OR trim(__user) = '' THEN {no_user} "
            "WHEN regexp_matches(__event, '\\p{Cc}') THEN 'control character in the event' "
            f"{longest}{self._wrong_user('__user', '__user_id')} "
            "WHEN __time_text IS NULL OR __time_text = '' THEN 'no time' "
            "WHEN __local IS NULL THEN 'time not readable' "
            "WHEN NOT isfinite(__local) OR year(__local) NOT BETWEEN 1 AND 9999 "
            "THEN 'time not in the years 1 to 9999' END"
        )
