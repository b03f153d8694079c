"""Cohort tables of the drop-in: where they are right, and bitmapist's are not; and their pages.

That the numbers are otherwise those of bitmapist is compared in compat/test_dropin.py.
"""

from __future__ import annotations

import csv
import sys
from datetime import date, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from tallymark import InvalidValueError, MissingExtraError, SyncTally
from tallymark.bitmapist import UniqueEvents, cohort, cohort_pages, mark_event, mark_unique

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store

DAY = date(2026, 1, 31)


@pytest.fixture(autouse=True)
def _leaves_no_keys(systems: dict[str, Any]) -> Iterator[None]:
    yield
    assert not [key for client in systems.values() for key in client.keys("*bitop*")]


def marked(event: str, days: dict[int, list[int]], system: str = "default") -> None:
    """Mark users so many days after `DAY`."""
    for number, users in days.items():
        for user in users:
            mark_event(event, user, system, DAY + timedelta(number))


def cells(**options: Any) -> list[list[Any]]:
    """Return the cells of a table that begins on `DAY`, without the dates."""
    usual: dict[str, Any] = {"start_date": DAY.isoformat(), "num_results": 2, "num_of_rows": 2}
    return [row[1:] for row in cohort.get_dates_data(**usual | options)]


class TestNumbers:
    def test_cells(self) -> None:
        marked("signup", {0: [1, 2, 3, 4], 1: [5]})
        marked("active", {0: [1, 2, 3], 1: [1, 9], 3: [9]})
        assert cells(select1="signup", select2="active") == [
            # Of the day itself, the next one, and one on which nobody was there.
            [4, 75.0, 25.0, ""],
            [1, 0.0, "", 0.0],
        ]
        numbers = cells(select1="signup", select2="active", as_percent=False)
        assert numbers == [[4, 3, 1, ""], [1, 0.0, "", 0.0]]
        assert cells(select1="nobody", select2="active") == [[0, "", "", ""]] * 2

    def test_both_may_have_another_event(self) -> None:
        marked("signup", {0: [1, 2, 3]})
        marked("paid", {0: [2, 3, 4], 1: [2]})
        marked("active", {0: [1, 2], 1: [1, 2]})
        options = {"select1": "signup", "select1b": "paid", "select2": "active"}
        assert cells(**options)[0] == [2, 50.0, 50.0, ""]
        assert cells(**options, select2b="paid")[0] == [2, 50.0, 50.0, ""]
        assert cells(select1="signup", select2="active", select2b="paid")[0][1:3] == [
            pytest.approx(100 / 3),
            pytest.approx(100 / 3),
        ]

    @pytest.mark.parametrize(
        ("time_group", "dates"),
        [
            ("days", ["2026-01-31", "2026-02-01"]),
            ("weeks", ["2026-01-31", "2026-02-07"]),
            ("months", ["2026-01-01", "2026-02-01"]),
            ("years", ["2026-01-31", "2027-01-31", "2028-01-31"]),
        ],
    )
    def test_the_first_row_is_that_of_the_start_date(
        self, time_group: Any, dates: list[str]
    ) -> None:
        """bitmapist's begins where a table of days that long would end, and goes back."""
        marked("active", {0: [7]})
        table = cohort.get_dates_data(
            "active", "active", time_group=time_group, num_results=2, start_date="2026-01-31"
        )
        assert [row[0].date().isoformat() for row in table] == dates
        assert table[0][1:3] == [1, 100.0]

    def test_from_the_29th_of_february_on(self) -> None:
        mark_event("active", 1, now=date(2026, 5, 5))
        table = cohort.get_dates_data(
            "active", "active", time_group="years", start_date="2024-02-29", num_of_rows=2
        )
        assert [row[0].date() for row in table] == [
            date(2024, 2, 29),
            date(2025, 2, 28),
            date(2026, 2, 28),
        ]
        assert table[2][1:3] == [1, 100.0]

    @pytest.mark.parametrize("time_group", ["days", "weeks", "months", "years"])
    def test_the_last_row_is_the_present_by_default(self, time_group: Any) -> None:
        mark_event("active", 1)
        before = datetime.now(timezone.utc)
        table = cohort.get_dates_data("active", "active", time_group=time_group)
        if datetime.now(timezone.utc).date() == before.date():  # else it has just passed
            assert table[-1][1:3] == [1, 100.0]
            assert all(row[1] == 0 for row in table[:-1])
        assert len(table) == (3 if time_group == "years" else 31)
        assert {len(row) for row in table} == {2 + 13}

    def test_lengths_may_be_strings_as_forms_send_them(self) -> None:
        assert cells(select1="a", select2="a", num_results="1", num_of_rows="0") == [[0, ""]]
        assert cells(select1="a", select2="a", num_of_rows=-1) == [[0], [0]]
        assert cells(select1="a", select2="a", num_results=0) == []

    def test_what_is_no_period_or_date(self) -> None:
        wrong: Any = "hours"
        with pytest.raises(InvalidValueError, match="time_group"):
            cohort.get_dates_data("a", "a", time_group=wrong)
        with pytest.raises(InvalidValueError, match="start_date"):
            cohort.get_dates_data("a", "a", start_date="31.1.2026")
        for group, start in (("days", "9999-12-31"), ("months", "9999-12-31"), ("years", None)):
            with pytest.raises(InvalidValueError, match="9999"):
                cells(select1="a", select2="a", time_group=group, start_date=start, num_of_rows=8e3)

    def test_it_agrees_with_a_tallys_retention(self, plain_store: Store) -> None:
        marked("signup", {0: [1, 2, 3, 4], 1: [5], 2: [1, 6]})
        marked("active", {number: [1, 5, number] for number in range(6)})
        with SyncTally(plain_store.raw) as tally:
            table = tally.retention(
                "signup", "active", by="day", periods=2, cohorts=3, until=DAY + timedelta(3)
            )
        ours = cells(select1="signup", select2="active", num_results=3, as_percent=False)
        assert [row[0] for row in ours] == list(table.sizes)
        for row, counts in zip(ours, table.counts, strict=True):
            known = [count for count in counts if count is not None]
            assert [cell or 0 for cell in row[1 : 1 + len(known)]] == known

    def test_results_are_on_the_system_that_was_named(self, plain_store: Store) -> None:
        """bitmapist's operators, in a handler, look on the default one."""

        def on_either(key: str, cls: Any, arguments: Any) -> Any:
            return cls("web", *arguments) | cls("ios", *arguments)

        cohort.set_custom_handler("either", on_either)
        marked("signup", {0: [1, 2, 3]}, "other")
        marked("web", {0: [1]}, "other")
        marked("ios", {0: [2]}, "other")
        table = cells(select1="signup", select2="either", system="other", as_percent=False)
        assert table[0] == [3, 2, "", ""]
        assert plain_store.names() == set()

    def test_a_handler_may_leave_users_out(self) -> None:
        def without_staff(key: str, cls: Any, arguments: Any) -> Any:
            return cls("active", *arguments) & ~UniqueEvents("staff")

        def nobody_of_staff(key: str, cls: Any, arguments: Any) -> Any:
            return ~UniqueEvents("staff")

        cohort.set_custom_handler("customers", without_staff)
        cohort.set_custom_handler("others", nobody_of_staff)
        marked("active", {0: [1, 2, 70_000]})
        mark_unique("staff", 2)
        mark_event("staff", 1)
        assert cells(select1="customers", select2="active", as_percent=False)[0] == [2, 2, "", ""]
        # Whoever was ever marked as staff, but for who is: user 1.
        table = cells(select1="active", select2="others", as_percent=False)
        assert table[0] == [3, 1, 1, 1]


class Elements(HTMLParser):
    """The elements of a page, as (tag, attributes), and the text of each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


class TestForm:
    def test_it_asks_for_what_get_dates_data_takes(self) -> None:
        page = Elements(
            cohort.render_html_form(
                "/_Cohort",
                [("Are active", "active"), "---", ("Signed up", "signup")],
                selections2=[("Played", "song:play")],
                time_group="weeks",
                select1="signup",
                select2="song:play",
                as_percent=False,
                num_results=5,
                start_date="2026-01-31",
            )
        )
        (form,) = page.of("form")
        assert (form["action"], form["method"]) == ("/_Cohort", "get")
        fields = {element["name"] for tag in ("select", "input") for element in page.of(tag)}
        assert fields == {
            *("select1", "select1b", "select2", "select2b", "time_group", "as_percent"),
            *("num_results", "num_of_rows", "start_date"),
        }
        chosen = [option["value"] for option in page.of("option") if "selected" in option]
        assert chosen == ["signup", "", "song:play", "", "weeks", "0", "5", "12"]
        assert [option["value"] for option in page.of("option") if "disabled" in option] == [""] * 2
        assert page.of("input")[0]["value"] == "2026-01-31"
        assert page.of("button")[-1]["name"] == "export_csv"

    def test_nothing_of_a_stranger_becomes_markup(self) -> None:
        evil = '"><script>alert(1)</script>'
        page = cohort.render_html_form(
            evil, [(evil, evil)], select1=evil, start_date=evil, select1b=evil
        )
        assert "<script" not in page
        assert Elements(page).of("form")[0]["action"] == evil

    def test_without_jinja2_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cohort_pages._form.cache_clear()
        monkeypatch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(MissingExtraError, match=r"tallymark\[bitmapist\]"):
            cohort.render_html_form("/", [("A", "a")])
        assert cohort.render_html_data([])  # which needs none


TABLE = [
    [datetime(2026, 1, 31, tzinfo=timezone.utc), 4, 75.0, 100 / 3, ""],
    [datetime(2026, 2, 1, tzinfo=timezone.utc), 1, 0.0, "", ""],
]
NUMBERS = [[*TABLE[0][:2], 3, 1, ""], [*TABLE[1][:2], 0.0, "", ""]]


class TestTable:
    def test_per_cent(self) -> None:
        page = Elements(cohort.render_html_data(TABLE, num_of_rows=2))
        assert len(page.of("tr")) == 4
        for text in ("31 Jan 2026", "75.0%", "33.3%", "0%", "37.5%"):
            assert text in page.texts
        assert [each["class"] for each in page.of("td") if "title" in each] == [
            *("r4", "r4", "none"),  # the means
            *("r8", "r4", "none"),
            *("r0", "none", "none"),
        ]

    def test_numbers(self) -> None:
        page = Elements(cohort.render_html_data(NUMBERS, as_percent=False, num_of_rows=2))
        assert "%" not in "".join(page.texts[page.texts.index("31 Jan 2026") : -14])
        assert page.texts[page.texts.index("31 Jan 2026") :][:4] == ["31 Jan 2026", "4", "3", "1"]

    def test_without_rows_or_users(self) -> None:
        for table in ([], [[*TABLE[0][:1], 0, "", "", ""]]):
            assert Elements(cohort.render_html_data(table, num_of_rows=2)).of("table")

    @pytest.mark.parametrize(
        ("time_group", "first"),
        [
            ("days", "31 Jan 2026"),
            ("weeks", "Week 05 31 Jan 2026"),
            ("months", "31 Jan 2026"),
            ("years", "2026"),
        ],
    )
    def test_csv(self, time_group: Any, first: str) -> None:
        text = cohort.render_csv_data(TABLE, time_group=time_group, num_of_rows=2)
        rows = list(csv.reader(text.splitlines()))
        assert rows[0] == ["Date", "Total", "0", "1", "2"]
        assert rows[1] == [first, "4", "75.0", "33.33", ""]
        assert rows[2][1:] == ["1", "0.0", "", ""]

    def test_csv_of_numbers(self) -> None:
        text = cohort.render_csv_data(NUMBERS, as_percent=False, num_of_rows=2)
        assert text.splitlines()[1:] == ["31 Jan 2026,4,3,1,", "01 Feb 2026,1,0,,"]
