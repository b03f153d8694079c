"""Django: with its test clients, and in gunicorn (WSGI) and uvicorn (ASGI) over HTTP."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, connections
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, modify_settings, override_settings
from django.test.utils import CaptureQueriesContext
from django_project import Member, async_user, path_of
from web_servers import HERE, gunicorn, today, uvicorn

from tallymark.integrations.django import MarkMiddleware, get_buffer, get_tally
from wires import wired

# It needs the apps of the project, which is set up by now.
from django.contrib.auth.models import AnonymousUser, User  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stores import Store

MIDDLEWARE = "tallymark.integrations.django.MarkMiddleware"


@pytest.fixture(scope="module", autouse=True)
def _database() -> Iterator[None]:
    """Make the tables in the database, which is in memory."""
    with connection.cursor():  # keeps the database alive
        call_command("migrate", run_syncdb=True, verbosity=0)
        User.objects.create(pk=7, username="ada")
        yield
    connections.close_all()


@pytest.fixture
def store(plain_store: Store) -> Iterator[Store]:
    """Return each kind of store in turn, as that of the project."""
    with override_settings(TALLYMARK={"URL": plain_store.url, "LOGIN_EVENT": "login"}):
        yield plain_store


@pytest.fixture
def ada(store: Store) -> Client:
    """Return a client that user 7 has logged in with, before the setting `store`."""
    client = Client(raise_request_exception=False)
    with override_settings(TALLYMARK={"URL": "memory://"}):
        client.force_login(User.objects.get(pk=7))
    return client


def users(event: str = "active") -> list[Any]:
    """Return the users of an event today, once all marks are sent."""
    get_buffer().flush()
    return sorted(get_tally().users(get_tally().day(event)))


@pytest.fixture(autouse=True)
def failures(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Return what a test logs, the first failure of each kind too."""
    log = "tallymark.integrations._request_marks.failures"
    monkeypatch.setattr(f"{log}._silent_until", {})
    monkeypatch.setattr(f"{log}._unlogged", {})
    return caplog


# --- which requests are marked


def test_requests_that_load_a_user_are_marked(
    store: Store, failures: pytest.LogCaptureFixture
) -> None:
    client = Client()
    assert client.get("/me").content == b"None"
    client.get("/login/8")
    assert client.get("/me").content == b"8"
    client.get("/logout")
    client.get("/login/9")
    client.get("/logout")
    assert users() == [8, 9]
    assert users("login") == [8, 9]
    assert [each for each in failures.records if "marked" in each.getMessage()] == []


def test_only_a_user_who_has_logged_in_is_marked(store: Store) -> None:
    class Guest(AnonymousUser):
        pk: Any = 7

    request = RequestFactory().get("/")
    request.user = Guest()
    MarkMiddleware(lambda _: HttpResponse("hello"))(request)
    assert users() == []


PATHS = [
    ("/me", True),
    ("/async", True),
    ("/song", True),
    ("/public", False),  # loads no user
    ("/public-async", False),
    ("/broken", False),
    ("/missing", False),
    ("/quiet", False),
    ("/quiet-async", False),
    ("/quiet-class", False),
    ("/skipped", False),
]


@pytest.mark.parametrize(("path", "active"), PATHS)
def test_which_paths_are_marked(ada: Client, path: str, active: bool) -> None:
    ada.get(path)
    assert users() == ([7] if active else [])
    assert users("login") == []


@pytest.mark.parametrize(("path", "active"), PATHS)
async def test_which_paths_are_marked_on_an_event_loop(
    ada: Client, path: str, active: bool
) -> None:
    client = AsyncClient(raise_request_exception=False)
    client.cookies = ada.cookies
    await client.get(path)
    assert await sync_to_async(users)() == ([7] if active else [])
    await sync_to_async(connections.close_all)()


@pytest.mark.parametrize("path", ["/public", "/public-async", "/missing"])
def test_a_mark_loads_no_user_and_changes_no_response(ada: Client, path: str) -> None:
    responses = []
    for action in ("append", "remove"):
        with (
            modify_settings(MIDDLEWARE={action: MIDDLEWARE}),
            CaptureQueriesContext(connection) as queries,
        ):
            client = Client()
            client.cookies = ada.cookies
            response = client.get(path)
        responses.append((response.status_code, response.headers, response.content))
        assert "Vary" not in response.headers
        assert not response.cookies
        assert len(queries) == 0
    assert responses[0] == responses[1]


def test_logins(store: Store) -> None:
    client = Client()
    client.force_login(User.objects.get(pk=7))  # its request has no user
    client.get("/login/8")
    client.get("/quiet-login/9")
    assert users("login") == [7, 8]
    with override_settings(TALLYMARK={"URL": store.url, "EVENT": None}):
        client.get("/login/9")
        client.get("/me")
        assert users("login") == [7, 8]
        assert users() == [8]


async def test_logins_on_an_event_loop(store: Store) -> None:
    user = await User.objects.aget(pk=7)
    await AsyncClient().aforce_login(user)
    assert await sync_to_async(users)("login") == [7]
    await sync_to_async(connections.close_all)()


def test_settings_say_who_what_and_when(plain_store: Store) -> None:
    def event(request: Any) -> str | None:
        return None if request.path == "/public" else "elsewhere"

    setting = {
        "URL": plain_store.url,
        "OPTIONS": {"user_ids": "str"},
        "EVENT": event,
        "LOGIN_EVENT": "login",
        "USER": "django_project.path_of",
        "WHEN": lambda request, status: status != 200 or request.path == "/me",
    }
    with override_settings(TALLYMARK=setting):
        client = Client()
        for path in ("/public", "/me", "/count/active", "/missing", "/login/7"):
            client.get(path)
        assert users("elsewhere") == ["user of /me", "user of /missing"]
        assert users("login") == ["user of /login/7"]


@pytest.mark.parametrize("kind", ["uuid", uuid.UUID])
def test_keys_that_are_uuids(plain_store: Store, kind: Any) -> None:
    setting = {"URL": plain_store.url, "OPTIONS": {"user_ids": kind}}
    with override_settings(TALLYMARK=setting, AUTH_USER_MODEL="auth.Member"):
        request = RequestFactory().get("/")
        request.user = member = Member()
        response: Any = MarkMiddleware(lambda _: HttpResponse("hello"))(request)
        assert response.content == b"hello"
        assert users() == [member.pk]
        assert run_checks() == []


@pytest.mark.parametrize("user_id", ["ada", -1, 2**32, uuid.UUID(int=1)])
def test_a_bad_id_is_logged_and_the_request_answered(
    store: Store,
    user_id: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    setting = {"URL": store.url, "USER": lambda request: user_id}
    with override_settings(TALLYMARK=setting):
        assert Client().get("/public").content == b"for everybody"
        assert users() == []
    (record,) = [each for each in caplog.records if each.name == "tallymark.integrations"]
    assert "user id must be" in record.getMessage()


# --- the setting


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("redis://secret@host", "TALLYMARK must be a dict"),
        ({"Url": "redis://localhost"}, "TALLYMARK has no key 'Url'; there are URL, OPTIONS, EVENT"),
        ({"URL": "http://secret@localhost"}, "URL"),
        ({"OPTIONS": [1]}, r"TALLYMARK\['OPTIONS'\] must be a dict"),
        (
            {"OPTIONS": {"Prefix": "a_"}},
            r"OPTIONS\['Prefix'\] is no option; .* OPTIONS\['prefix'\], ",
        ),
        ({"OPTIONS": {"timeout": -1}}, "timeout must be more than 0"),
        (
            {"OPTIONS": {"user_ids": "email"}},
            r"OPTIONS\['user_ids'\] must be a type, or",
        ),
        ({"EVENT": ""}, "event must be"),
        ({"LOGIN_EVENT": 7}, "event must be"),
        ({"USER": "django_project.nobody"}, r"TALLYMARK\['USER'\] cannot be imported"),
        ({"USER": async_user}, "must be a plain function, not async"),
        ({"WHEN": "not a path"}, r"TALLYMARK\['WHEN'\] cannot be imported"),
        ({"WHEN": 200}, "must be a plain function"),
    ],
)
def test_a_bad_setting_is_named(setting: Any, message: str) -> None:
    with override_settings(TALLYMARK=setting):
        with pytest.raises(ImproperlyConfigured, match=message) as caught:
            Client().get("/public")
        (error,) = run_checks()
    assert (error.id, error.msg) == ("tallymark.E001", str(caught.value))
    assert "secret" not in error.msg


@pytest.mark.parametrize(
    ("model", "user_ids", "warned"),
    [
        ("auth.User", None, False),
        ("auth.User", int, False),
        ("auth.User", str, True),
        ("auth.Member", None, True),
        ("auth.Member", uuid.UUID, False),
    ],
)
def test_a_check_compares_the_ids(model: str, user_ids: Any, warned: bool) -> None:
    setting = {"URL": "memory://", "OPTIONS": {"user_ids": user_ids}}
    with override_settings(TALLYMARK=setting, AUTH_USER_MODEL=model):
        assert [each.id for each in run_checks()] == (["tallymark.W001"] if warned else [])
    with override_settings(TALLYMARK={**setting, "USER": path_of}, AUTH_USER_MODEL=model):
        assert run_checks() == []


def test_overriding_the_setting_sends_what_waits_and_makes_a_new_tally(
    redis_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYMARK_URL", "redis://environment.example")
    with wired(redis_store.url) as wire:
        wire.delay = 0.1
        with override_settings(TALLYMARK={"URL": wire.url, "OPTIONS": {"prefix": "one_"}}):
            first = get_tally()
            get_buffer().mark_event("active", 7)
            assert get_tally() is first
        with override_settings(TALLYMARK={}):
            assert get_tally() is not first
            client: Any = get_tally().client
            assert client.get_connection_kwargs()["host"] == "environment.example"
    assert {7} in redis_store.bits().values()


# --- the store, and servers


def test_a_view_may_count(store: Store) -> None:
    client = Client()
    client.get("/login/7")
    client.get("/song")
    get_buffer().flush()
    assert client.get("/count/song:played").content == b"1"


@pytest.mark.timed
@pytest.mark.parametrize("fault", ["gone", "silent"])
async def test_a_store_that_fails_delays_no_response(redis_store: Store, fault: str) -> None:
    with wired(redis_store.url) as wire:
        if fault == "gone":
            wire.refusing = True
        else:
            wire.swallow()
        setting = {"URL": wire.url, "OPTIONS": {"timeout": 1.0}, "USER": lambda request: 7}
        with override_settings(TALLYMARK=setting):
            clients = Client(), AsyncClient()
            began = time.monotonic()
            for _ in range(50):
                response: Any = await sync_to_async(clients[0].get)("/public")
                assert response.content == b"for everybody"
                response = await clients[1].get("/public-async")
                assert response.content == b"for everybody"
            took = time.monotonic() - began
            wire.heal()
    assert took < 1


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the path of a copy of the database, for processes of servers."""
    path = tmp_path / "tests.sqlite3"
    copy = sqlite3.connect(path)
    connection.ensure_connection()
    connection.connection.backup(copy)
    copy.close()
    return str(path)


SERVERS: dict[str, Any] = {
    "gthread": (gunicorn, "django_project:wsgi"),
    "preload": (gunicorn, "django_project:wsgi", "--preload", "--workers", "2"),
    "uvicorn": (uvicorn, "django_project:asgi"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_servers_send_the_marks_of_all_answered_requests(
    redis_store: Store, database: str, kind: str
) -> None:
    run, *arguments = SERVERS[kind]
    path = "/visit-async/{}" if kind == "uvicorn" else "/visit/{}"
    with wired(redis_store.url) as wire:
        with run(*arguments, TALLYMARK_URL=wire.url, TESTS_DATABASE=database) as server:
            cookies = server.get("/login/1000").cookies
            for own in ("/me", "/async"):
                assert server.get(own, {"Cookie": cookies}).text == "1000"
            wire.delay = 0.1  # so that marks wait when the signal comes
            answered = server.visit_until_it_stops(path)
    assert "Traceback" not in "".join(server.log)
    bits = redis_store.bits()
    assert bits[f"trackist_login_{today()}"] == {1000}
    assert bits[f"trackist_visit_{today()}"] >= answered | {1000}


@pytest.mark.parametrize("kind", ["gthread", "uvicorn"])
def test_the_log_has_all_marks_that_have_failed_when_a_server_stops(
    database: str, kind: str
) -> None:
    run, *arguments = SERVERS[kind]
    path = "/visit-async/{}" if kind == "uvicorn" else "/visit/{}"
    variables = {
        "TALLYMARK_URL": "redis://127.0.0.1:1",  # where nothing listens
        "TESTS_DATABASE": database,
        "TESTS_TIMEOUT": "0.2",
    }
    answered, more = 0, 3
    with run(*arguments, **variables) as server:
        while more:  # some after the first message, of which there is one in ten seconds
            assert server.get(path.format(answered)).status == 200
            answered += 1
            more -= "buffered marks have failed" in "".join(server.log)
    log = "".join(server.log)
    assert sum(map(int, re.findall(r"(\d+) (?:more )?buffered marks", log))) == answered


def test_a_command_sends_its_marks_at_its_end(redis_store: Store) -> None:
    program = (
        "import django_project\n"
        "from tallymark.integrations.django import get_buffer\n"
        "for user_id in range(100): get_buffer().mark_event('active', user_id)\n"
    )
    with wired(redis_store.url) as wire:
        wire.delay = 0.1
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=HERE,
            env={**os.environ, "TALLYMARK_URL": wire.url},
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert redis_store.bits()[f"trackist_active_{today()}"] == set(range(100))
