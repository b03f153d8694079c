"""Flask: with its test client, and in gunicorn over HTTP."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Request
from flask_apps import make_app
from web_servers import gunicorn, today

from tallymark import InvalidTypeError, InvalidValueError
from tallymark.integrations.flask import Tallymark, add_error_handlers
from wires import wired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store


@pytest.fixture
def extension() -> Tallymark:
    extension = Tallymark()
    extension.mark_requests()
    extension.mark_logins()
    return extension


@pytest.fixture
def app(extension: Tallymark, plain_store: Store) -> Iterator[Flask]:
    app = make_app(extension, TALLYMARK_URL=plain_store.url)
    yield app
    app.extensions["tallymark"].close()


def users(app: Flask, extension: Tallymark, event: str = "active") -> list[Any]:
    """Return the users of an event today, once all marks are sent."""
    with app.app_context():
        extension.buffer.flush()
        return sorted(extension.tally.users(extension.tally.day(event)))


# --- which requests are marked


@pytest.fixture(autouse=True)
def failures(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Return what a test logs, the first failure of each kind too."""
    log = "tallymark.integrations._request_marks.failures"
    monkeypatch.setattr(f"{log}._silent_until", {})
    monkeypatch.setattr(f"{log}._unlogged", {})
    return caplog


def test_requests_that_load_a_user_are_marked(
    app: Flask, extension: Tallymark, failures: pytest.LogCaptureFixture
) -> None:
    with app.test_client() as client:
        assert client.get("/me").text == "None"  # anonymous
        client.get("/login/7")
        assert client.get("/me").text == "7"
        client.get("/logout")
    with app.test_client() as client:
        client.get("/login/8")
        client.get("/logout")
    assert users(app, extension) == [7, 8]
    assert failures.records == []  # an anonymous request is none


def test_anonymous_requests_are_no_user_named_none(
    plain_store: Store, failures: pytest.LogCaptureFixture
) -> None:
    extension = Tallymark(url=plain_store.url, user_ids=str)
    extension.mark_requests()
    app = make_app(extension)
    with app.test_client() as client:
        assert client.get("/me").text == "None"
    assert users(app, extension) == failures.records == []
    app.extensions["tallymark"].close()


@pytest.mark.parametrize(
    ("path", "active"),
    [
        ("/me", True),
        ("/async", True),
        ("/song", True),
        ("/public", False),  # loads no user
        ("/broken", False),
        ("/missing", False),
        ("/quiet", False),
        ("/quiet-class", False),
        ("/skipped", False),
    ],
)
def test_which_paths_are_marked(app: Flask, extension: Tallymark, path: str, active: bool) -> None:
    with app.test_client() as client:
        client.get("/quiet-login/7")
        client.get(path)
    assert users(app, extension) == ([7] if active else [])


def test_a_response_is_the_same_with_and_without_marks(plain_store: Store) -> None:
    """Not one header more: neither a cookie nor ``Vary``."""
    responses = []
    for is_marked in (True, False):
        extension = Tallymark(url=plain_store.url)
        if is_marked:
            extension.mark_requests()
        app = Flask(__name__)
        app.secret_key = "of the tests"
        extension.init_app(app)
        app.add_url_rule("/", view_func=lambda: "hello")
        with app.test_client() as client:
            responses.append((client.get("/").headers, client.get("/").text))
        app.extensions["tallymark"].close()
    assert responses[0] == responses[1]


def test_functions_say_who_what_and_when(plain_store: Store) -> None:
    def user(request: Request) -> str | None:
        return request.headers.get("X-User")

    def event(request: Request) -> str | None:
        return None if request.path == "/none" else f"page:{request.path[1:]}"

    extension = Tallymark(url=plain_store.url, user_ids=str)
    extension.mark_requests(event, user=user)
    extension.mark_requests("lost", user=user, when=lambda request, status: status == 404)
    app = Flask(__name__)
    extension.init_app(app)
    for path in ("a", "none"):
        app.add_url_rule(f"/{path}", path, view_func=lambda: "")
    with app.test_client() as client:
        for path in ("/a", "/none", "/b", "/a"):
            client.get(path, headers={"X-User": f"user of {path}"})
        client.get("/a")
    assert users(app, extension, "page:a") == ["user of /a"]
    assert users(app, extension, "lost") == ["user of /b"]
    with app.app_context():
        assert extension.tally.event_names() == ["lost", "page:a"]
    app.extensions["tallymark"].close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"event": ""}, InvalidValueError),
        ({"event": 1}, InvalidTypeError),
        ({"user": "id"}, InvalidTypeError),
        ({"when": 200}, InvalidTypeError),
    ],
)
def test_what_cannot_be_marked_is_refused_at_once(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Tallymark().mark_requests(**arguments)


def test_decorated_views(app: Flask, extension: Tallymark) -> None:
    with app.test_client() as client:
        assert client.get("/song").text == "la la la, None"
        client.get("/login/7")
        assert client.get("/song").text == "la la la, 7"
        client.get("/login/8")
        assert client.get("/async-song").text == "la la la, 8"
        client.get("/login/9")
        client.get("/skipped")
    assert users(app, extension, "song:played") == [7, 8]


def test_logins(app: Flask, extension: Tallymark) -> None:
    with app.test_client() as client:
        client.get("/login/7")
        client.get("/me")
        client.get("/quiet-login/8")
        client.get("/login/9")
    assert users(app, extension, "login") == [7, 9]


def test_in_a_context_around_several_requests(app: Flask, extension: Tallymark) -> None:
    """A test that pushes a context, as pytest-flask does, shares `flask.g` between requests."""
    with app.test_request_context(), app.test_client() as client:
        client.get("/quiet-login/7")
        client.get("/skipped")
        client.get("/me")
    assert users(app, extension) == [7]


# --- ids


@pytest.mark.parametrize(
    ("kind", "text", "user_id"),
    [
        (None, "7", 7),
        (int, "-7", -7),
        ("int", "7", 7),
        (str, "ada@example.com", "ada@example.com"),
        ("bytes", "é", "é".encode()),
        (uuid.UUID, f"{uuid.UUID(int=7)}", uuid.UUID(int=7)),
        ("uuid", f"{uuid.UUID(int=7)}", uuid.UUID(int=7)),
    ],
)
def test_ids_are_converted(plain_store: Store, kind: Any, text: str, user_id: object) -> None:
    extension = Tallymark()
    extension.mark_logins("login")
    app = make_app(extension, TALLYMARK_URL=plain_store.url, TALLYMARK_USER_IDS=kind)
    with app.test_client() as client:
        client.get(f"/login/{text}")
    assert users(app, extension, "login") == [user_id]
    app.extensions["tallymark"].close()


@pytest.mark.parametrize("text", ["ada", "-1", "4294967296"])
def test_a_bad_id_is_logged_and_the_request_answered(
    app: Flask,
    extension: Tallymark,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with app.test_client() as client:
        assert client.get(f"/login/{text}").text == "welcome"
        assert client.get("/me").text == text
    assert users(app, extension) == []
    (record,) = caplog.records  # one for all within ten seconds
    assert record.name == "tallymark.integrations"
    assert record.levelno == logging.WARNING
    assert text in record.getMessage()


def test_a_function_that_raises_breaks_no_response(
    plain_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    extension = Tallymark(url=plain_store.url)
    extension.mark_requests(user=lambda request: 1 // 0)
    extension.mark_requests("seen", user=lambda request: 7)
    app = make_app(extension)
    with app.test_client() as client:
        assert client.get("/public").text == "for everybody"
    assert users(app, extension, "seen") == [7]
    assert "ZeroDivisionError" in caplog.text
    app.extensions["tallymark"].close()


# --- apps and their configuration


def test_apps_have_tallies_of_their_own(extension: Tallymark, plain_store: Store) -> None:
    apps = [
        make_app(extension, TALLYMARK_URL=plain_store.url, TALLYMARK_PREFIX=prefix)
        for prefix in ("one_", "two_")
    ]
    for user_id, app in enumerate(apps):
        with app.test_client() as client:
            client.get(f"/login/{user_id}")
            client.get("/me")
    assert [users(app, extension) for app in apps] == [[0], [1]]
    for app in apps:
        app.extensions["tallymark"].close()


def hosts_of(app: Flask) -> list[str]:
    """Return the host of an app's tally."""
    return [app.extensions["tallymark"].client.get_connection_kwargs()["host"]]


def test_the_configuration_goes_first(memory_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYMARK_URL", "redis://environment.example")
    extension = Tallymark(url="redis://argument.example", prefix="argument_", user_ids=str)
    app = make_app(extension, TALLYMARK_URL=memory_store.url, TALLYMARK_PREFIX="config_")
    app.extensions["tallymark"].mark_event("active", "ada")
    assert "config_schema" in memory_store.names()
    assert hosts_of(make_app(extension)) == ["argument.example"]
    assert hosts_of(make_app(Tallymark())) == ["environment.example"]
    monkeypatch.delenv("TALLYMARK_URL")
    assert hosts_of(make_app(Tallymark())) == ["localhost"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"TALLYMARK_URL": "http://secret@localhost"}, "URL"),
        ({"TALLYMARK_PREFFIX": "a_"}, "^TALLYMARK_PREFFIX is no option; .*, TALLYMARK_PREFIX, "),
        (
            {"TALLYMARK_USER_IDS": "email"},
            "^TALLYMARK_USER_IDS must be a type, or one of the names str, bytes, ",
        ),
        ({"TALLYMARK_TIMEOUT": 0}, "timeout must be more than 0"),
    ],
)
def test_a_bad_setting_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        make_app(Tallymark(), **config)
    assert "secret" not in str(caught.value)


def test_an_app_is_initialized_once(app: Flask, extension: Tallymark) -> None:
    with pytest.raises(RuntimeError, match="already"):
        extension.init_app(app)


def test_the_tally_needs_an_app(extension: Tallymark) -> None:
    with pytest.raises(RuntimeError, match="application context"):
        _ = extension.tally
    with Flask(__name__).app_context(), pytest.raises(RuntimeError, match="init_app"):
        _ = extension.tally


# --- errors of the store


@pytest.mark.timed
@pytest.mark.parametrize("fault", ["gone", "silent"])
def test_a_store_that_fails_delays_no_response(redis_store: Store, fault: str) -> None:
    with wired(redis_store.url) as wire:
        if fault == "gone":
            wire.refusing = True
        else:
            wire.swallow()
        extension = Tallymark(url=wire.url, timeout=1.0)
        extension.mark_requests()
        app = make_app(extension)
        with app.test_client() as client:
            client.get("/quiet-login/7")
            began = time.monotonic()
            for _ in range(50):
                assert client.get("/song").text == "la la la, 7"
            took = time.monotonic() - began
        wire.heal()
        app.extensions["tallymark"].close()
    assert took < 0.5


def test_errors_in_views_are_answered(redis_store: Store) -> None:
    extension = Tallymark(timeout=0.2)
    with wired(redis_store.url) as wire:
        app = make_app(extension, TALLYMARK_URL=wire.url, TESTING=False)
        add_error_handlers(app)

        @app.get("/count/<event>")
        def count(event: str) -> str:
            return str(extension.tally.count(extension.tally.day(event)))

        @app.get("/mark/<int:user_id>")
        def mark(user_id: int) -> str:
            return str(extension.tally.mark_event("a", user_id))

        with app.test_client() as client:
            assert client.get("/mark/7").text == "month|week|day"
            assert client.get("/count/a").text == "1"
            refused = client.get("/mark/4294967296")
            assert refused.status_code == 400
            assert "user id must be in [0, 4294967295]" in refused.text
            wire.refusing = True
            wire.cut_all()
            failed = client.get("/count/a")
        assert (failed.status_code, failed.headers["Retry-After"]) == (503, "5")
        assert str(wire.port) not in failed.text
        wire.heal()
        app.extensions["tallymark"].close()


# --- over HTTP


@pytest.mark.parametrize("arguments", [(), ("--preload", "--workers", "2")], ids=["", "preload"])
def test_gunicorn_sends_the_marks_of_all_answered_requests(
    redis_store: Store, arguments: tuple[str, ...]
) -> None:
    with wired(redis_store.url) as wire:
        with gunicorn("flask_apps:create_app()", *arguments, TALLYMARK_URL=wire.url) as server:
            cookies = server.get("/login/7").cookies
            assert server.get("/me", {"Cookie": cookies}).text == "7"
            wire.delay = 0.1  # so that marks wait when the signal comes
            answered = server.visit_until_it_stops("/visit/{}")
    assert "Traceback" not in "".join(server.log)
    bits = redis_store.bits()
    assert bits[f"trackist_login_{today()}"] == {7}
    assert bits[f"trackist_active_{today()}"] == {7}
    assert bits[f"trackist_visit_{today()}"] >= answered
