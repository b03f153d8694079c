"""Where other products keep the event, the user and the time: the presets of ``--preset``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .fields import Field

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """The rows of a product.

    SQL has the values of `fields` where it has their names in braces.

    Attributes:
        title: what the rows are.
        format: the format of files whose extension says nothing.
        user: where the user's id is.
        time: where the time is.
        event: where the name of the event is.
        event_sql: the name of the event in SQL; ``None`` for that in ``event``.
        keep_sql: a condition for rows that are events; ``None`` for all.
        fields: the fields that the SQL has, each ``NULL`` where a source lacks it.
        timezone: the time zone of times without one; ``None`` for the tally's.
        time_format: the format of the time, as in ``strptime``; ``None`` for those that are
            recognised.
        line_columns: of lines with columns that have no names, the number of those that are
            used, from 1 on.
        line_pattern: a regular expression that a line has to match; its groups are columns.
        line_names: the names of the groups.
        unnested: the key of a list in JSON; each of its items is a row, in the key ``action``.
        skips_incomplete: whether rows without an event or a user are no events, rather than
            errors.
    """

    title: str
    format: str
    user: Field
    time: Field
    event: Field = Field()  # noqa: RUF009 - it is frozen
    event_sql: str | None = None
    keep_sql: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    time_format: str | None = None
    line_columns: dict[str, int] = field(default_factory=dict)
    line_pattern: str | None = None
    line_names: tuple[str, ...] = ()
    unnested: str | None = None
    skips_incomplete: bool = False


def _field(*columns: str) -> Field:
    return Field(columns)


_SEGMENT: Final = Preset(
    title="Segment: track, page and screen calls",
    format="ndjson",
    user=_field("userId", "user_id", "anonymousId", "anonymous_id"),
    time=_field("timestamp", "originalTimestamp", "original_timestamp"),
    event_sql="CASE coalesce({type}, 'track') WHEN 'track' THEN {event} "
    "ELSE coalesce(nullif({name}, ''), {type}) END",
    keep_sql="coalesce({type}, 'track') IN ('track', 'page', 'screen')",
    fields={"type": "type", "event": "event", "name": "name"},
    timezone="UTC",
)

#: A line of the log format ``combined`` of nginx and Apache, also without referer and agent, and
#: with the virtual host before it. Names of users may have blanks; Apache escapes ``"``.
_COMBINED: Final = (
    r"^(?:[^\s:]+:\d+ )?(\S+) \S+ (.+?) \[([^\]]+)\] "
    r'"(?:([A-Z]+) ((?:[^ ?"\\]|\\.)*)(?:\?((?:[^ "\\]|\\.)*))?(?:[^"\\]|\\.)*'
    r'|(?:[^"\\]|\\.)*)" '
    r'(\d{3}) (\S+)(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?'
)

PRESETS: Final[dict[str, Preset]] = {
    "segment": _SEGMENT,
    "rudderstack": _SEGMENT,
    "mixpanel": Preset(
        title="Mixpanel: the raw export",
        format="ndjson",
        event=_field("event"),
        user=_field("properties.distinct_id", "distinct_id"),
        time=_field("properties.time", "time"),
        timezone="UTC",
    ),
    "amplitude": Preset(
        title="Amplitude: the export, a zip archive",
        format="ndjson",
        event=_field("event_type"),
        user=_field("user_id", "device_id"),
        time=_field("event_time"),
        timezone="UTC",
    ),
    "posthog": Preset(
        title="PostHog: the batch export of events, Parquet or JSON lines",
        format="ndjson",
        event=_field("event"),
        user=_field("person_id", "distinct_id"),
        time=_field("timestamp"),
        timezone="UTC",
    ),
    "ga4": Preset(
        title="Google Analytics 4: the tables of the BigQuery export, Parquet or JSON lines",
        format="ndjson",
        event=_field("event_name"),
        user=_field("user_id", "user_pseudo_id"),
        time=_field("event_timestamp"),
        timezone="UTC",
    ),
    "snowplow": Preset(
        title="Snowplow: enriched events, TSV without a header",
        format="tsv",
        event=_field("event_name", "event"),
        user=_field("user_id", "domain_userid"),
        time=_field("derived_tstamp", "collector_tstamp"),
        timezone="UTC",
        line_columns={
            "app_id": 1,
            "platform": 2,
            "collector_tstamp": 4,
            "event": 6,
            "user_id": 13,
            "domain_userid": 16,
            "page_urlpath": 37,
            "derived_tstamp": 125,
            "event_name": 127,
        },
    ),
    "nginx": Preset(
        title="nginx and Apache: the log format combined; events by --path-event",
        format="text",
        user=_field("remote_user"),
        time=_field("time"),
        time_format="%d/%b/%Y:%H:%M:%S %z",
        line_pattern=_COMBINED,
        line_names=(
            "remote_addr",
            "remote_user",
            "time",
            "method",
            "path",
            "query",
            "status",
            "bytes",
            "referer",
            "agent",
        ),
        skips_incomplete=True,
    ),
    "matomo": Preset(
        title="Matomo: the answers of Live.getLastVisitsDetails, JSON",
        format="json",
        event=_field("action.eventAction", "action.type"),
        user=_field("userId", "visitorId"),
        time=_field("action.timestamp"),
        timezone="UTC",
        unnested="actionDetails",
    ),
    "heap": Preset(
        title="Heap: events as CSV or JSON lines",
        format="csv",
        event_sql="nullif(concat_ws(':', nullif({object}, ''), nullif({type}, '')), '')",
        fields={"object": "object", "type": "type"},
        user=_field("identity", "user_id"),
        time=_field("time"),
        timezone="UTC",
    ),
}
