from __future__ import annotations

import math
from datetime import timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tallymark import InvalidTypeError, InvalidValueError
from tallymark._core.options import Options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timezone": "Mars/Olympus"}, InvalidValueError, "unknown time zone 'Mars/Olympus'"),
        ({"timezone": "../etc/passwd"}, InvalidValueError, "unknown time zone"),
        ({"timezone": ""}, InvalidValueError, "unknown time zone"),
        ({"timezone": 1}, InvalidTypeError, "timezone must be"),
        ({"track_hourly": 1}, InvalidTypeError, "track_hourly must be True, False or None"),
        ({"track_unique": "no"}, InvalidTypeError, "track_unique must be True, False or None"),
        ({"track_yearly": None}, InvalidTypeError, "track_yearly must be True or False"),
        ({"bitfield": None}, InvalidTypeError, "bitfield must be True or False"),
        ({"timeout": 0}, InvalidValueError, "timeout must be more than 0"),
        ({"timeout": -1.5}, InvalidValueError, "timeout must be more than 0"),
        ({"timeout": math.nan}, InvalidValueError, "timeout must be more than 0"),
        ({"timeout": "5"}, InvalidTypeError, "timeout must be a number"),
        ({"timeout": True}, InvalidTypeError, "timeout must be a number"),
        ({"prefix": ""}, InvalidValueError, "prefix must be"),
        ({"max_user_id": -1}, InvalidValueError, "max_user_id must be"),
        ({"track_hurly": True}, TypeError, "track_hurly"),
    ],
)
def test_options_that_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Options(**options)


def test_defaults() -> None:
    options = Options()
    assert options.zone is timezone.utc
    assert options.seconds == 5.0
    assert options.schema().prefix == "trackist_"


def test_zones_by_name_and_by_value() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert Options(timezone="Europe/Berlin").zone == berlin
    assert Options(timezone=berlin).zone is berlin


def test_no_limit() -> None:
    assert Options(timeout=math.inf).seconds is None
