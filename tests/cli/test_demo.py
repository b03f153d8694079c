"""The demo fills a store with the sample app, and prints reports of it."""

from __future__ import annotations

import json
import re
import shlex
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING

import pytest

from tallymark import SyncTally
from tallymark.cli import main
from tallymark.cli.sample import SampleApp

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

HEADINGS = (
    "Active users by week",
    "Who comes back in the weeks after signing up",
    "New, returning and lost users by week",
    "From signing up to paying, within 14 days",
)


def test_a_demo_needs_no_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYMARK_URL", "redis://nowhere.invalid")  # for real events, not for this
    assert main(["demo", "--users", "50", "--days", "30"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    assert printed.out.startswith("An invented app with 50 users, from ")
    for heading in HEADINGS:
        assert f"\n{heading}\n\n" in printed.out


def test_a_demo_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "demo.html"
    assert main(["demo", "--users", "50", "--days", "60", "--json", "--html", str(page)]) == 0
    reports = {part["report"]: part["rows"] for part in json.loads(capsys.readouterr().out)}
    assert tuple(reports) == HEADINGS
    steps = reports[HEADINGS[-1]]
    assert [step["name"] for step in steps] == ["signup", "project", "checkout", "subscribe"]
    assert steps[0]["count"] == 50
    html = page.read_text("utf-8")
    assert html.count("<!DOCTYPE html>") == 1
    assert all(f'<p class="title">{heading}</p>' in html for heading in HEADINGS)


def test_a_demo_is_not_mixed_with_other_events(redis_cli: CommandLine) -> None:
    demo = "demo --users 20 --days 28 --prefix demo_"
    redis_cli(demo)
    signups = int(redis_cli.out("count signup --last 28 --prefix demo_"))
    assert signups == 20
    refused = redis_cli(demo, code=2)
    assert "there are events already" in refused.err
    redis_cli(f"{demo} --yes")  # the same users again
    assert int(redis_cli.out("count signup --last 28 --prefix demo_")) == signups


@pytest.mark.parametrize("kind", ["str", "uuid", "int", "bytes"])
def test_a_demo_with_ids_of_any_type(redis_cli: CommandLine, kind: str) -> None:
    options = f"--prefix {kind}_ --user-ids {kind}"
    redis_cli(f"demo --users 20 --days 28 {options}")
    assert len(redis_cli.rows(f"users signup --last 28 {options}")) == 20


@pytest.mark.parametrize(
    "option", ["--csv", *(f"--users {n}" for n in ("0", "100001", "1.5", "0x10")), "--days 27"]
)
def test_what_a_demo_does_not_take(redis_cli: CommandLine, option: str) -> None:
    assert redis_cli(f"demo {option}", code=2).err.count("\n") == 1


def test_a_demo_marks_nothing_in_the_future(redis_cli: CommandLine) -> None:
    redis_cli("demo --users 300 --days 28")
    with SyncTally.from_url(redis_cli.url) as tally:
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        for event in ("open", "comment", "upload"):
            assert all(period.start <= now for period in tally.periods(event, "hour"))
            assert all(period.start <= now for period in tally.periods(event, "day"))
        assert tally.periods("open", "hour")


def test_the_next_steps_of_a_demo(redis_cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are commands that work, one after the other."""
    shown = redis_cli.out("demo --users 50 --days 28 --prefix x_")
    steps = re.findall(r"^  (?:tallymark|export) (.*)", shown, re.MULTILINE)
    name, _, _ = steps[0].partition("=")
    monkeypatch.setenv(name, redis_cli.url)
    assert len(steps) == 4
    for step in steps[1:]:
        assert main([*shlex.split(step), *(["--users", "50"] if "demo " in step[:5] else [])]) == 0
    assert "signup" in redis_cli.capsys.readouterr().out


def test_the_sample_app_is_the_same_in_every_run() -> None:
    app = SampleApp(date(2026, 2, 1), 120)
    assert list(app.events()) == list(SampleApp(date(2026, 2, 1), 120).events())
    assert len(app.users) == 2000
    assert app.onboarding == (date(2026, 4, 1) - app.first).days
    assert app.broken == range(71, 78)
