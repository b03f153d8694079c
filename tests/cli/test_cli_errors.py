"""Errors: exit codes, one line and no traceback, and no password anywhere."""

from __future__ import annotations

import itertools
import shlex
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallymark import SyncTally
from tallymark.cli import main
from tallymark.cli._commands import COMMANDS, OPTIONS
from tallymark.cli._errors import hidden

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine

    from stores import Store

#: Nobody listens there.
NOWHERE = "127.0.0.1:1"
SECRET = "s3cret"
HOSTILE = [
    f"redis://:{SECRET}@{NOWHERE}/0",
    f"redis://user:{SECRET}@{NOWHERE}/not-a-number",
    f"redis://user:a@b{SECRET}@{NOWHERE}/0",
    f"redis://user:a b {SECRET}@{NOWHERE}/0",
    f"redis://user:a\n{SECRET}@{NOWHERE}/0",
    f"redis://user:a'{SECRET}\"@{NOWHERE}/0",
    f"redis://user:[bold]{SECRET}@{NOWHERE}/0",
    f"redis:/user:{SECRET}@{NOWHERE}",
    f":{SECRET}@{NOWHERE}",
    f"http://user:{SECRET}@{NOWHERE}/",
    f"rediss+cluster://:{SECRET}@{NOWHERE},{NOWHERE}?ssl_cert_reqs=none",
    f"redis://{NOWHERE}/0?password={SECRET}",
    f"redis://{NOWHERE}/0?pasword={SECRET}",
    f"redis://:{SECRET}{'x' * 200} y{SECRET}@{NOWHERE}/0?db=x",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_no_password_is_shown_where_a_url_belongs(
    url: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STORE", url)
    (tmp_path / "url").write_text(url, encoding="utf-8")
    quick = ["--timeout", "0.05"]
    for where in (f"{url}", "env:STORE", f"file:{tmp_path / 'url'}"):
        code = main(["count", "active", "--url", where, "--debug", *quick])
        assert code in {2, 3}
        assert main(["migrate", where, where, "--quiet", "--debug", "--ids", "x"]) == 2
        assert main([f"--url={where}", "users", "active", *quick]) == code
    monkeypatch.setenv("TALLYMARK_URL", url)
    assert main(["count", "active", "--debug", *quick]) == code
    main(["count", "--help"])
    printed = "".join(capfd.readouterr())
    assert SECRET not in printed
    assert printed.count("tallymark: ") == 10


#: Where somebody may put a URL by mistake.
MISPLACED = [
    "{0} count active",
    "count {0}",
    "count '{0} & active'",
    "count active {0} extra & more",
    "count active --day {0}",
    "count active --dya {0}",
    "count active --dya={0}",
    "count active -{0}",
    "count active --last {0}",
    "count active --timeout {0}",
    "count active --shards {0}",
    "count active --user-ids {0}",
    "count active --timezone {0}",
    "count active --prefix {0}",
    "count active --json {0} {0}",
    "count active --html {0}/x/y",
    "mark active {0}",
    "mark {0} 1 2 3",
    "mark active 1 --at {0}",
    "mark-many active {0}",
    "retention signup active --by {0}",
    "retention signup active --segment {0}",
    "retention signup active --segment ios={0}",
    "funnel a b --since {0}",
    "funnel a b --label {0}",
    "migrate {0}",
    "migrate memory://a memory://b {0}",
    "delete-all {0}",
    "forget {0}",
    "help {0}",
    "completion {0}",
    "count active --url env:{0}",
    "count active --url file:{0}",
]


@pytest.mark.parametrize("command", MISPLACED)
def test_no_password_is_shown_where_no_url_belongs(
    command: str, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (HOSTILE[0], *HOSTILE[3:6]):
        words = [word.format(url) for word in shlex.split(command)]
        cli.capsys.readouterr()
        code = main(["--url", cli.url, "--debug", *words])
        printed = "".join(cli.capsys.readouterr())
        assert SECRET not in printed, printed
        assert code in {0, 1, 2}


@pytest.mark.parametrize("word", [f":{SECRET}@h", f"{SECRET}", f"{SECRET.upper()}x"])
def test_unknown_words_are_repeated_only_if_they_look_like_names(
    word: str, cli: CommandLine
) -> None:
    for command in ([word], ["count", "a", f"--{word}"], ["count", "a", f"--{word}=x"]):
        assert word not in cli(command, code=2).err


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("foo://x", "begins with one of redis://, rediss://, unix://"),
        ("foo://x", "; got another one\n"),
        ("memory://a/b", "an embedded store is memory:// or memory://name, without host, path"),
        ("unix://x", "a socket's URL is unix:///path, or unix://user:password@/path; "),
        ("redis+sentinel://x", "redis+sentinel://host:port,host:port/service or, with"),
        ("redis+cluster://x/1", "redis+cluster://host:port,host:port, without the number"),
        ("redis://x/db", "the path of a redis:// URL is the number of a database"),
    ],
)
def test_advice_about_urls_is_shown(url: str, advice: str, cli: CommandLine) -> None:
    assert main(["count", "active", "--url", url]) == 2
    assert advice in cli.capsys.readouterr().err
    assert advice in cli(f"migrate {url} memory://b", code=2).err


def test_what_stands_behind_a_url_in_a_message(cli: CommandLine) -> None:
    assert "'<URL>' (--user-ids" in cli("mark a redis://:p@h", code=2).err
    assert "'<URL>', character 7: " in cli(["count", "a://b (c"], code=2).err
    assert "'<URL>' " in cli(["mark", "a", f"redis://, {SECRET}@h"], code=2).err


def test_messages_have_no_python(cli: CommandLine) -> None:
    with SyncTally.from_url(cli.url, user_ids=str, shards=4) as tally:
        tally.mark_event("a", "x")
    assert main(["mark", "a", "5000000000000", "--url", "memory://"]) == 2
    assert "give --user-ids uuid, str" in cli.capsys.readouterr().err
    wrong = cli("mark a 1 --shards 4", code=2).err
    assert "has --user-ids str for" in wrong
    assert "this tally --user-ids none; pass --user-ids str" in wrong
    wrong = cli("mark a 1 --user-ids str --shards 5", code=2).err
    assert "has --shards 4 for" in wrong
    assert "=" not in wrong


def test_hidden_urls() -> None:
    assert hidden("to redis://:p@h:1/0 and back") == "to <URL> and back"
    assert hidden("nothing: //here") == "nothing: //here"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cuont active", "there is no such command: cuont; tallymark --help lists all"),
        ("count active --mnth 2026-01", "there is no such option: --mnth"),
        ("mark active", "USER_ID is missing"),
        ("count active --day", "--day is missing, or its value"),
        ("mark active 1 2", "there are too many arguments"),
        ("count active --json --csv", "one is possible"),
        ("count active --day today --week this", "--day and --week are several periods"),
        ("count active --until today", "--until needs --since"),
        ("count active --day today --day today", "--day is given twice"),
        ("count active --timezone Mars/Base", "unknown time zone 'Mars/Base'"),
        ("count active --timeout 0", "timeout must be more than 0"),
        ("count active --user-ids guid", "--user-ids does not take this value"),
        ("count", "WHAT is missing"),
        ("completion tcsh", "SHELL does not take this value"),
    ],
)
def test_usage(command: str, message: str, cli: CommandLine) -> None:
    outcome = cli(command, code=2)
    assert outcome.out == ""
    assert outcome.err.startswith("tallymark: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_failing_store(redis_cli: CommandLine, redis_store: Store) -> None:
    redis_store.raw.rpush("trackist_active_2026-1-5", "a list")
    outcome = redis_cli("count active --day 2026-01-05", code=3)
    assert outcome.err.startswith("tallymark: ")
    assert "WRONGTYPE" in outcome.err
    assert main(["count", "active", "--url", f"redis://{NOWHERE}", "--timeout", "0.05"]) == 3


def test_debug_shows_where(cli: CommandLine) -> None:
    outcome = cli("count active& --debug", code=2)
    assert "Traceback" in outcome.err
    assert "_expressions.py" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("tallymark: the event set")
    assert "Traceback" not in cli("count active&", code=2).err


def test_an_error_of_the_program_itself(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError(f"redis://:{SECRET}@h")

    monkeypatch.setattr("tallymark.cli._expressions.Expression.parse", fail)
    outcome = cli("count active", code=1)
    assert "tallymark itself (LookupError); --debug shows where" in outcome.err
    assert SECRET not in cli("count active --debug", code=1).err


EVIL = "[red]x[/red]\u202e[/]"


def test_names_are_neither_markup_nor_change_the_direction_of_text(cli: CommandLine) -> None:
    cli(["mark", EVIL, "1"])
    for command in ("memory", "history 1", f"count a '\"{EVIL}\"'", f"trend '\"{EVIL}\"'"):
        shown = cli.out(command) if command != f"count a '\"{EVIL}\"'" else cli(command).out
        assert "[red]x[/red]\\u202e[/]" in shown
        assert "\u202e" not in shown
    assert cli.rows("events") == [{"event": EVIL}]


def test_control_characters_of_ids_are_escaped(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]0;pwned\x07\x9b31m"
    cli(["mark", "active", evil, "--user-ids", "str"])
    table = cli.out("ids 0 --user-ids str")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    listed = cli.out("users active --user-ids str")
    for shown in (table, listed):
        assert "\\x1b]0;pwned\\x07\\x9b31m" in shown
        assert "\x1b]" not in shown
    monkeypatch.undo()
    assert cli.out("users active --user-ids str") == f"{evil}\n"  # for programs


def test_ids_with_line_breaks_stay_on_a_line(cli: CommandLine) -> None:
    cli(["mark", "active", "a\nb", "--user-ids", "str"])
    assert cli.out("users active --user-ids str") == '"a\\nb"\n'
    assert cli.rows("users active --user-ids str") == [{"user_id": "a\nb"}]


COMMAND_WORDS = st.sampled_from([name for name in COMMANDS if name != "completion"])
OPTION_WORDS = st.sampled_from(
    [f"--{name}" for name in OPTIONS if name not in {"url", "html", "debug"}]
    + ["--day", "--month", "--unique", "--last", "--since", "--by", "--limit", "--at", "--help"]
)
VALUES = st.sampled_from(
    ["active", "1", "-1", "2026-01", "today", "a & b", "(", "a@last3", "str", "day", "7d", "x=y"]
)
WORDS = OPTION_WORDS | VALUES | st.text(max_size=8)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=COMMAND_WORDS, words=st.lists(WORDS, max_size=5))
def test_no_command_line_ends_in_a_traceback(
    command: str,
    words: list[str],
    memory_store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["--url", memory_store.url, command, *words])
    printed = capsys.readouterr()
    assert code in {0, 1, 2, 3}
    assert "Traceback" not in printed.err
    assert "itself" not in printed.err, printed.err
    if code in {2, 3}:
        assert printed.err.splitlines()[-1].startswith("tallymark: ")


def test_every_prefix_of_a_command_line_is_answered(cli: CommandLine) -> None:
    line = shlex.split("retention signup active --by day --periods 2 --segment ios=ios@unique")
    for words in itertools.accumulate([[word] for word in line]):
        assert main(["--url", cli.url, *words]) in {0, 2}
