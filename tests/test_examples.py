"""The examples, each run as it stands; the web apps are asked over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from aiohttp.test_utils import TestClient, TestServer
from plugin_runs import passed, run_folder
from web_servers import gunicorn

from servers import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import ModuleType

    from stores import Store

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run an example as a program, with every warning an error."""
    env = {key: value for key, value in os.environ.items() if key != "TALLYMARK_URL"}
    if url is not None:
        env["TALLYMARK_URL"] = url
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=env,
    )


def today() -> str:
    now = datetime.now(timezone.utc)
    return f"{now.year}-{now.month}-{now.day}"


# --- quickstart


def test_quickstart_prints_what_was_marked_and_the_bits(plain_store: Store) -> None:
    url = plain_store.url if plain_store.url.startswith("redis") else None
    done = run("quickstart", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Monday:  first time this month|week|day\n" in done.stdout
    assert "Tuesday: first time this day\n" in done.stdout
    lines = done.stdout.partition("bits set:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["trackist_active_2026-11", "[7, 8, 123]"],
        ["trackist_active_2026-11-23", "[7, 8, 123]"],
        ["trackist_active_2026-11-23-9", "[7, 8]"],
        ["trackist_active_2026-11-24", "[123]"],
        ["trackist_active_W2026-48", "[7, 8, 123]"],
        ["trackist_premium_u", "[8]"],
    ]


def test_quickstart_answers_questions_about_users_with_addresses(plain_store: Store) -> None:
    url = plain_store.url if plain_store.url.startswith("redis") else None
    with (EXAMPLES / "shop_events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    users = defaultdict(set)
    for row in rows:
        week = datetime.fromisoformat(row["time"]).isocalendar().week
        users[row["event"], week].add(row["user_id"])
    returned = users["visit", 45] & users["visit", 48]
    loyal = users["order", 46] & users["order", 47] & users["order", 48]
    assert returned
    assert loyal

    done = run("quickstart", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    title, visitors, back, _, *addresses = done.stdout.partition("\n\na shop: ")[2].splitlines()
    assert title.startswith(f"{len(rows)} events")
    counts = [len(users["visit", week]) for week in (45, 46, 47, 48)]
    assert [int(count) for count in visitors.partition(": ")[2].split()] == counts
    assert back.endswith(f": {len(returned)}")
    assert sorted(address.strip() for address in addresses) == sorted(loyal)


def test_the_sample_of_the_quickstart_is_what_its_script_makes() -> None:
    made = run("make_shop_events")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == (EXAMPLES / "shop_events.csv").read_text(encoding="utf-8")


def test_the_events_of_the_cookbook_can_be_written_as_csv() -> None:
    made = run("make_product_events")
    assert (made.returncode, made.stderr) == (0, "")
    rows = list(csv.DictReader(made.stdout.splitlines()))
    assert len({row["user_id"] for row in rows}) == 2000
    assert {row["time"][:7] for row in rows} == {f"2026-0{month}" for month in (2, 3, 4, 5)}
    assert run("make_product_events").stdout == made.stdout


def test_reports(tmp_path: Path) -> None:
    done = run("reports", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in ("lifecycle", "days-active", "funnel", "trend", "streaks"):
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert "Opened the app" in page or "Created a project" in page
        assert "<svg" in page


# --- the script


def test_script_marks_the_file_it_ships(redis_store: Store) -> None:
    done = run("sync_script", url=redis_store.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "active: 6 new\nsignup: 2 new\ntask:completed: 1 new\n"
    bits = redis_store.bits()
    assert bits["trackist_active_W2026-48"] == {101, 102, 103, 104}
    assert bits["trackist_active_2026-11-24"] == {101, 102, 103, 104}  # 103's is the 24th in UTC
    again = run("sync_script", url=redis_store.url)
    assert again.stdout == "active: 0 new\nsignup: 0 new\ntask:completed: 0 new\n"


def test_script_runs_without_a_server() -> None:
    assert "signup: 2 new" in run("sync_script").stdout


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2026-11-23,active,-1", "user id must be in"),
        ("2026-11-23,active,x", "invalid literal"),
        ("yesterday,active,1", "yesterday"),
        ("2026-11-23,,1", "event must be"),
        ("2026-11-23,active", "NoneType"),
    ],
)
def test_script_says_which_row_is_wrong(tmp_path: Path, row: str, message: str) -> None:
    source = tmp_path / "bad.csv"
    source.write_text(f"time,event,user_id\n{row}\n")
    done = run("sync_script", str(source))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- FastAPI, by uvicorn, over HTTP


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app in a thread of its own, and yield its URL."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(20)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


def ask(method: str, url: str) -> tuple[int, Any]:
    """Send one request, and return the status and the JSON of the answer."""
    try:
        with urlopen(Request(url, method=method), timeout=20) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("kind", ["redis_store", "memory_store"])
def test_fastapi(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = request.getfixturevalue(kind)
    monkeypatch.setenv("TALLYMARK_URL", store.url)
    with served(load("fastapi_app").app) as url:
        assert ask("POST", f"{url}/users/7/login") == (200, {"first_today": True})
        assert ask("POST", f"{url}/users/7/login") == (200, {"first_today": False})
        assert ask("POST", f"{url}/users/8/login") == (200, {"first_today": True})
        assert ask("GET", f"{url}/stats/login/today") == (200, {"users": 2, "again": 0})
        assert ask("GET", f"{url}/stats/other/today") == (200, {"users": 0, "again": 0})
        assert ask("GET", f"{url}/stats/login/users") == (200, [7, 8])
        assert ask("GET", f"{url}/stats/login/users?start=8&limit=1") == (200, [8])
        assert ask("GET", f"{url}/stats/login/users?start=-1")[0] == 422
        assert ask("GET", f"{url}/pages/home?user_id=9") == (200, {"page": "home"})

        status, answer = ask("POST", f"{url}/users/10000001/login")
        assert status == 422
        assert "[0, 10000000]" in answer["detail"]
        assert ask("GET", f"{url}/stats/%0A/today")[0] == 422
    bits = store.bits()
    assert bits[f"trackist_login_{today()}"] == {7, 8}
    assert bits[f"trackist_page:view_{today()}"] == bits[f"trackist_active_{today()}"] == {9}


def test_fastapi_without_a_usable_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server("--requirepass", "unknown to the app") as redis_url:
        monkeypatch.setenv("TALLYMARK_URL", redis_url)
        with served(load("fastapi_app").app) as url:
            status, answer = ask("POST", f"{url}/users/7/login")
    assert status == 503
    assert "not available" in answer["detail"]


def test_the_tests_of_the_fastapi_app(redis_store: Store, tmp_path: Path) -> None:
    for name in ("fastapi_app.py", "test_fastapi_app.py"):
        (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    passed(run_folder(tmp_path), 4)
    passed(run_folder(tmp_path, "--tallymark-url", redis_store.url), 4)


# --- Flask and Django, by gunicorn, over HTTP


@pytest.mark.parametrize("kind", ["redis_store", "memory_store"])
@pytest.mark.parametrize("app", ["flask_app:app", "django_app"])
def test_wsgi(app: str, kind: str, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(kind)
    url = store.url if kind == "redis_store" else "memory://"
    with gunicorn(app, "--chdir", str(EXAMPLES), TALLYMARK_URL=url) as server:
        anonymous = server.get("/pages/home").status
        assert anonymous == (200 if app == "django_app" else 401)
        ada = {"Cookie": server.get("/login/7", method="POST").cookies}
        page = server.get("/pages/home", ada)
        assert (page.status, json.loads(page.text)) == (200, {"page": "home"})
        for first in (True, False):
            song = server.get("/users/8/song", method="POST")
            assert json.loads(song.text) == {"first_today": first}
        refused = server.get("/users/10000001/song", method="POST")
        assert refused.status == 400
        assert "[0, 10000000]" in refused.text
        played = server.get("/stats/song:played/today")
        assert json.loads(played.text) == {"users": 1, "again": 0}
    if kind == "redis_store":
        bits = store.bits()
        for event in ("login", "active", "page:view"):
            assert bits[f"trackist_{event}_{today()}"] == {7}


@pytest.mark.parametrize("app", ["flask_app:app", "django_app"])
def test_wsgi_without_a_usable_redis(app: str) -> None:
    with (
        running_server("--requirepass", "unknown to the app") as redis_url,
        gunicorn(app, "--chdir", str(EXAMPLES), TALLYMARK_URL=redis_url) as server,
    ):
        ada = {"Cookie": server.get("/login/7", method="POST").cookies}
        assert server.get("/pages/home", ada).status == 200
        failed = server.get("/users/8/song", method="POST")
    assert failed.status == 503
    assert "not available" in failed.text


# --- retention


def test_retention_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "table.html"
    done = run("retention", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    assert "9,809 signed up in 13 weeks\n" in done.stdout
    assert "back after 1 weeks: 68%\n" in done.stdout
    assert page.read_text(encoding="utf-8").count("<tr") == 15 + 14  # and those of the curve


# --- aiohttp


@contextlib.asynccontextmanager
async def asked(name: str) -> AsyncIterator[Callable[[str, str], Awaitable[tuple[int, Any]]]]:
    """Serve an example, and yield a function that sends a request to it."""
    async with TestClient(TestServer(load(name).make_app())) as client:

        async def send(method: str, path: str) -> tuple[int, Any]:
            async with client.request(method, path) as response:
                return response.status, await response.json(content_type=None)

        yield send


@pytest.mark.parametrize("kind", ["redis_store", "memory_store"])
async def test_aiohttp_app(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = request.getfixturevalue(kind)
    monkeypatch.setenv("TALLYMARK_URL", store.url)
    async with asked("aiohttp_app") as send:
        assert await send("POST", "/users/7/login") == (200, {"first_today": True})
        assert await send("POST", "/users/7/login") == (200, {"first_today": False})
        assert await send("GET", "/pages/home?user_id=9") == (200, {"page": "home"})
        assert await send("GET", "/pages/home") == (200, {"page": "home"})
        assert await send("GET", "/pages/home?user_id=10000001") == (200, {"page": "home"})
        assert await send("GET", "/stats/login/today?user_id=8") == (200, {"users": 1})
        status, answer = await send("POST", "/users/10000001/login")
        assert status == 422
        assert "[0, 10000000]" in answer["error"]
        assert (await send("GET", "/stats/%0A/today"))[0] == 422
    bits = store.bits()
    assert bits[f"trackist_login_{today()}"] == {7}
    assert bits[f"trackist_active_{today()}"] == {9}


async def test_aiohttp_app_without_a_usable_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server("--requirepass", "unknown to the app") as redis_url:
        monkeypatch.setenv("TALLYMARK_URL", redis_url)
        async with asked("aiohttp_app") as send:
            status, answer = await send("POST", "/users/7/login")
            assert status == 503
            assert "not available" in answer["error"]
            assert await send("GET", "/pages/home?user_id=9") == (200, {"page": "home"})


@pytest.mark.parametrize("kind", ["redis_store", "memory_store"])
async def test_aiohttp(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = request.getfixturevalue(kind)
    monkeypatch.setenv("TALLYMARK_URL", store.url)
    example = load("aiohttp_worker")
    async with TestClient(TestServer(example.make_app())) as client:
        for user_id in range(50):
            async with client.post("/events", json={"event": "a", "user_id": user_id}) as answer:
                assert answer.status == 202
        async with client.post("/events", json={"event": "", "user_id": 1}) as answer:
            assert answer.status == 202  # refused by the worker, which goes on
        for body in ("{", "[]", '{"event": "a"}'):
            async with client.post("/events", data=body) as answer:
                assert answer.status == 400
        async with client.post("/events", json={"event": "b", "user_id": 1}) as answer:
            assert answer.status == 202
    # Leaving the block stopped the app, which waits for what is queued.
    assert store.bits()[f"trackist_a_{today()}"] == set(range(50))
    assert store.bits()[f"trackist_b_{today()}"] == {1}


async def test_aiohttp_with_a_full_queue(
    memory_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYMARK_URL", memory_store.url)
    example = load("aiohttp_worker")
    app = example.make_app()
    app[example.QUEUE] = asyncio.Queue(maxsize=1)
    release = asyncio.Event()

    async def stuck(queue: asyncio.Queue[Any], _: Any) -> None:
        await release.wait()
        while True:
            await queue.get()
            queue.task_done()

    monkeypatch.setattr(example, "work", stuck)
    async with TestClient(TestServer(app)) as client:
        statuses = []
        for user_id in range(2):
            async with client.post("/events", json={"event": "a", "user_id": user_id}) as answer:
                statuses.append(answer.status)
        release.set()
    assert statuses == [202, 503]
