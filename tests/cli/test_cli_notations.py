"""Periods, moments and event sets as they are written on a command line."""

from __future__ import annotations

import contextlib
import operator
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymark import Granularity, InvalidValueError, Period, SyncTally, any_of, at_least
from tallymark._core.batches import parse_period
from tallymark.cli._errors import UsageError
from tallymark.cli._expressions import Expression
from tallymark.cli._periods import moment_of, period_of

NOW = datetime(2026, 3, 1, 12, 30)
DATED = [kind for kind in Granularity if kind is not Granularity.UNIQUE]

periods = st.builds(
    Period.containing,
    st.sampled_from(DATED),
    st.datetimes(datetime(1, 1, 8), datetime(9999, 12, 20)),
)


@given(periods)
def test_a_period_is_written_as_it_prints_itself(period: Period) -> None:
    assert parse_period(str(period)) == period
    assert period_of(period.granularity, str(period), NOW) == period


@given(
    st.text("0123456789-WT", max_size=14) | st.from_regex(r"\d{4}-W?\d\d(-\d\d)?", fullmatch=True)
)
def test_other_texts_are_no_periods(text: str) -> None:
    period = parse_period(text)
    assert period is None or str(period) == text


@pytest.mark.parametrize(
    ("granularity", "text", "expected"),
    [
        (Granularity.DAY, "today", "2026-03-01"),
        (Granularity.DAY, "yesterday", "2026-02-28"),
        (Granularity.WEEK, "this", "2026-W09"),
        (Granularity.MONTH, "last", "2026-02"),
        (Granularity.YEAR, "last", "2025"),
        (Granularity.HOUR, "this", "2026-03-01T12"),
    ],
)
def test_words_for_periods(granularity: Granularity, text: str, expected: str) -> None:
    assert str(period_of(granularity, text, NOW)) == expected


@pytest.mark.parametrize(
    ("granularity", "text"),
    [
        (Granularity.MONTH, "2026-13"),
        (Granularity.MONTH, "2026-1"),
        (Granularity.MONTH, "2026"),
        (Granularity.WEEK, "2026-W54"),
        (Granularity.WEEK, "2026-W00"),
        (Granularity.DAY, "2026-02-29"),
        (Granularity.WEEK, "today"),
        (Granularity.DAY, "２０２６-01-05"),  # noqa: RUF001
        (Granularity.HOUR, "2026-01-05T24"),
        (Granularity.YEAR, "0000"),
        (Granularity.DAY, ""),
    ],
)
def test_no_such_period(granularity: Granularity, text: str) -> None:
    with pytest.raises(UsageError, match=f"--{granularity} takes"):
        period_of(granularity, text, NOW)


@given(
    st.datetimes(),
    st.none() | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_a_moment_is_written_in_iso_8601(moment: datetime, zone: timezone | None) -> None:
    moment = moment.replace(tzinfo=zone)
    assert moment_of("--at", moment.isoformat(), NOW) == moment
    assert moment_of("--at", moment.isoformat(" ", "minutes"), NOW) == moment.replace(
        second=0, microsecond=0
    )
    assert moment_of("--at", moment.date().isoformat(), NOW) == moment.date()


def test_words_for_moments() -> None:
    assert moment_of("--at", "now", NOW) == NOW
    assert moment_of("--at", "today", NOW) == date(2026, 3, 1)
    assert moment_of("--at", "yesterday", NOW) == date(2026, 2, 28)
    assert moment_of("--at", "2026-01-05T13:07Z", NOW) == datetime(
        2026, 1, 5, 13, 7, tzinfo=timezone.utc
    )


@given(st.text(max_size=30))
def test_other_texts_are_no_moments(text: str) -> None:
    known = text in {"now", "today", "yesterday"} or text[:4].isdigit()
    with pytest.raises(UsageError) if not known else contextlib.suppress(UsageError):
        moment_of("--at", text, NOW)


# ----- event sets

NAMES = ("a", "b", "c", "d")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(NAMES))
    left, right = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    text = f"{left} {draw(st.sampled_from('&|^-'))} {right}"
    return f"({text})" if draw(st.booleans()) else text


TALLY = SyncTally.from_url("memory://")


@given(expressions())
def test_an_expression_means_what_it_means_in_python(text: str) -> None:
    expected = eval(text, {name: TALLY.unique(name) for name in NAMES})
    parsed = Expression.parse(text)
    assert parsed.build(TALLY, TALLY.unique) == expected
    dense = text.replace(" & ", "&").replace(" | ", "|").replace(" ^ ", "^")
    assert Expression.parse(dense).build(TALLY, TALLY.unique) == expected
    if text not in NAMES:
        assert parsed.event is None


def test_at_least() -> None:
    a, b, c = (TALLY.unique(name) for name in "abc")
    built = {
        "at_least(2, a, b, c)": at_least(2, [a, b, c]),
        "at_least( 2 ,a,b&c , c) - a | b": at_least(2, [a, b & c, c]) - a | b,
        "c & at_least(1, a, b)": c & any_of([a, b]),
        "at_least(2, at_least(2, a, b, c), (b ^ c), a)": at_least(
            2, [at_least(2, [a, b, c]), b ^ c, a]
        ),
        'at_least(2, "a,b", b, c)': at_least(2, [TALLY.unique("a,b"), b, c]),
        "a,b & at_least": TALLY.unique("a,b") & TALLY.unique("at_least"),
        "at_least(1, a) | a,": a | TALLY.unique("a,"),
    }
    for text, expected in built.items():
        assert Expression.parse(text).build(TALLY, TALLY.unique) == expected, text
    assert Expression.parse("at_least(1, a)").event is None


@given(
    st.text("ab&|^-()@\" \t'\\2026W.", max_size=20)
    | st.text(max_size=20)
    | st.lists(st.sampled_from(["at_least(2,", "a", ",", "(", ")", "&", " - "])).map("".join)
)
def test_other_texts_are_no_expressions(text: str) -> None:
    with contextlib.suppress(UsageError, InvalidValueError):
        Expression.parse(text).build(TALLY, TALLY.unique)


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters='"'),
        min_size=1,
    )
)
def test_any_name_can_be_quoted(name: str) -> None:
    parsed = Expression.parse(f'"{name}"@unique')
    assert parsed.build(TALLY, TALLY.day) == TALLY.unique(name)
    assert Expression.parse(f'"{name}"').event == name


@pytest.mark.parametrize(
    "name", ["page:view", "sign-up", "-x", "a.b/c", "naïve", "a'b", "x--y", "100%", "a=b", "日本"]
)
def test_names_without_quotes(name: str) -> None:
    assert Expression.parse(name).event == name
    both = Expression.parse(f"{name} & {name}").build(TALLY, TALLY.unique)
    assert both == operator.and_(TALLY.unique(name), TALLY.unique(name))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", 1, "the name of an event is missing"),
        ("a &", 4, "the name of an event is missing"),
        ("& a", 1, "the name of an event is missing"),
        ("a b", 3, "an operator"),
        ("a -b", 3, "an operator"),
        ("(a", 3, "there is no ) for a ("),
        ("a)", 2, "there is no ( for this )"),
        ("a @b", 3, "this is no name"),
        ('a & "b', 5, "this is no name"),
        ("a()", 2, "an operator"),
        ("()", 2, "the name of an event is missing"),
        ("at_least(2, a)", 14, "from 1 to 1"),
        ("at_least(0, a, b)", 17, "from 1 to 2"),
        ("at_least(2, a, )", 16, "the name of an event is missing"),
        ("at_least(2, )", 13, "the name of an event is missing"),
        ("at_least(2, a, b", 17, "there is no ) for a ("),
        ("at_least(2, (a, b), c)", 15, "a comma stands between the sets"),
        ("at_least(a, b)", 9, "an operator"),
        ("at_least(2, a, b), c", 18, "an operator"),
        ("a at_least(1, b)", 3, "an operator"),
    ],
)
def test_where_an_expression_is_wrong(text: str, place: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression.parse(text)
    assert f"character {place}: " in str(caught.value)
    assert message in str(caught.value)


def test_deep_and_long_expressions() -> None:
    deep = "(" * 4000 + "a" + ")" * 4000
    assert Expression.parse(deep).build(TALLY, TALLY.unique) == TALLY.unique("a")
    with pytest.raises(UsageError, match="at most"):
        Expression.parse("a|" * 6000 + "a")
    with pytest.raises(UsageError, match="no period"):
        Expression.parse("a@2026-13").build(TALLY, TALLY.unique)
