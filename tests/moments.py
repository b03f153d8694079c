"""Moments for hypothesis, more of them near the edges of the calendar than by chance."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

BERLIN = ZoneInfo("Europe/Berlin")

#: Year ends, ISO weeks 1, 52 and 53, leap days, and both changes of the clock in Berlin.
EDGES = [
    datetime(2020, 12, 31, 23, 59),
    datetime(2021, 1, 3, 23),
    datetime(2021, 1, 4),
    datetime(2024, 2, 29, 12),
    datetime(2024, 12, 30),
    datetime(2025, 3, 30, 1, 30),
    datetime(2025, 10, 26, 1, 30),
    datetime(2026, 12, 31, 22),
    datetime(2027, 1, 1),
    datetime(2027, 1, 3, 12),
]

_near_edges = st.builds(
    lambda edge, hours: edge + timedelta(hours=hours),
    st.sampled_from(EDGES),
    st.integers(-40, 40),
)
naive_moments = _near_edges | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))
zones = st.sampled_from(
    [
        timezone.utc,
        BERLIN,
        ZoneInfo("America/St_Johns"),
        ZoneInfo("Pacific/Kiritimati"),
        timezone(timedelta(hours=-11, minutes=-30)),
    ]
)
aware_moments = st.builds(lambda moment, zone: moment.replace(tzinfo=zone), naive_moments, zones)
moments = naive_moments | aware_moments | naive_moments.map(datetime.date)
