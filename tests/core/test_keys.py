from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moments import naive_moments
from tallymark import (
    Granularity,
    InvalidTypeError,
    InvalidValueError,
    KeySchema,
    Period,
    TallymarkError,
)

SCHEMA = KeySchema()
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
periods = st.none() | st.builds(
    Period.containing,
    st.sampled_from([g for g in Granularity if g is not Granularity.UNIQUE]),
    naive_moments,
)
TODAY = Period.containing(Granularity.DAY, datetime(2026, 11, 24))


@given(names, periods, names)
@example("a_b", None, "trackist_")
@example("a:b", TODAY, "trackist_")
@example("a/b", TODAY, "trackist_")
@example("u", None, "trackist_")
@example("u_u", None, "trackist_")
@example("W2026-1", TODAY, "trackist_")
@example("*", TODAY, "trackist_")
@example("{x}", TODAY, "trackist_")
@example("trackist_a", TODAY, "trackist_")
@example("🎉", TODAY, "trackist_")
@example(" \N{NO-BREAK SPACE}\N{LINE SEPARATOR}", TODAY, "trackist_")
def test_parsing_is_the_inverse_of_building(event: str, period: Period | None, prefix: str) -> None:
    schema = KeySchema(prefix)
    key = schema.key(event, period)
    assert schema.parse(key) == (event, period)
    assert schema.parse(key.decode()) == (event, period)


def test_the_key_is_bitmapists() -> None:
    assert SCHEMA.key("task:completed", TODAY) == b"trackist_task:completed_2026-11-24"
    assert SCHEMA.key("premium", None) == b"trackist_premium_u"


class Name(str, enum.Enum):
    ACTIVE = "active"


def test_a_str_enum_names_by_its_value() -> None:
    assert SCHEMA.key(Name.ACTIVE, None) == b"trackist_active_u"


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ("", InvalidValueError, "non-empty"),
        ("a\nb", InvalidValueError, r"control characters, got '\\n' in 'a\\nb'"),
        ("a\0", InvalidValueError, "control characters"),
        ("\x7f", InvalidValueError, "control characters"),
        ("\x85", InvalidValueError, "control characters"),
        ("\ud800", InvalidValueError, "lone surrogate"),
        ("x" * 1000 + "\n", InvalidValueError, r"xxx\.\.\.$"),
        (b"active", InvalidTypeError, "got b'active' of type bytes"),
        (None, InvalidTypeError, "of type NoneType"),
        (["active"], InvalidTypeError, "of type list"),
        (1, InvalidTypeError, "of type int"),
    ],
)
def test_event_names_that_are_refused(
    event: Any, error: type[TallymarkError], message: str
) -> None:
    with pytest.raises(error, match=message):
        SCHEMA.key(event, None)


class Id(enum.IntEnum):
    ALICE = 7


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("user_id", [0, 1, 2**32 - 1, Id.ALICE])
def test_user_ids(user_id: int) -> None:
    offset = SCHEMA.offset(user_id)
    assert offset == user_id
    assert type(offset) is int


@pytest.mark.parametrize(
    ("user_id", "error", "message"),
    [
        (-1, InvalidValueError, r"in \[0, 4294967295\], got -1"),
        (2**32, InvalidValueError, r"in \[0, 4294967295\], got 4294967296"),
        pytest.param(10**5000, InvalidValueError, "got an int of 16,610 bits", id="huge"),
        (True, InvalidTypeError, "got True of type bool"),
        (1.0, InvalidTypeError, "got 1.0 of type float"),
        ("1", InvalidTypeError, "got '1' of type str"),
        (None, InvalidTypeError, "of type NoneType"),
        (Unprintable(), InvalidTypeError, "of type Unprintable"),
    ],
)
def test_user_ids_that_are_refused(user_id: Any, error: type[TallymarkError], message: str) -> None:
    with pytest.raises(error, match=message):
        SCHEMA.offset(user_id)


def test_a_lower_limit_for_ids() -> None:
    schema = KeySchema(max_user_id=1000)
    assert schema.offset(1000) == 1000
    with pytest.raises(InvalidValueError, match=r"in \[0, 1000\], got 1001"):
        schema.offset(1001)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"prefix": ""}, InvalidValueError),
        ({"prefix": "a\n"}, InvalidValueError),
        ({"prefix": None}, InvalidTypeError),
        ({"max_user_id": -1}, InvalidValueError),
        ({"max_user_id": 2**32}, InvalidValueError),
        ({"max_user_id": True}, InvalidTypeError),
        ({"max_user_id": "9"}, InvalidTypeError),
    ],
)
def test_schemas_that_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        KeySchema(**settings)


@pytest.mark.parametrize(
    "key",
    [
        "trackist_",
        "trackist_u",
        "trackist__u",
        "active_u",
        "trackist_active",
        "trackist_active_x",
        "trackist_a_2026-01",
        "trackist_a\n_u",
        b"trackist_\xff_u",
        "",
    ],
)
def test_other_keys_are_not_ours(key: bytes | str) -> None:
    with pytest.raises(InvalidValueError):
        SCHEMA.parse(key)
