"""`doctor`: logins, and what it says of the rights of a Redis user."""

from __future__ import annotations

import threading
import uuid
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from examined import Server, examined_server, found, user

from deployments import RIGHTS
from tallymark import PermissionDeniedError, StoreNotReadyError, SyncTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facades import Facade

DAY = date(2026, 1, 15)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with examined_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.reset()
    return one_server


def test_the_documented_rights_suffice(server: Server) -> None:
    with user(server, RIGHTS) as url:
        server.examine(url)  # writes nothing
        diagnosis = server.examine(url, expire={"day": timedelta(days=9)}, user_ids=str)
        assert found(diagnosis, "rights").status == "ok"
        assert found(diagnosis, "limits").seen == "CONFIG GET is denied to this Redis user"
        for check in ("limits", "scripts", "slow log"):
            assert found(diagnosis, check).status == "skipped"
        diagnosis = server.examine(url, shards=2)
        for check in ("version", "memory", "clients", "clock", "rights"):
            assert found(diagnosis, check).status == "ok", check
        with SyncTally.from_url(url, expire={"day": timedelta(days=36_500)}) as tally:
            tally.mark_event("a", 1, now=DAY)
            server.raw.persist("trackist_a_2026-1-15")
            assert sum(tally.apply_expiry().changed.values()) == 1
            assert tally.delete_before(date(2026, 3, 1)).total == 3


@pytest.mark.parametrize(
    ("without", "status", "verbs"),
    [
        ("setbit", "problem", "marks"),
        ("bitcount", "problem", "counts"),
        ("multi", "problem", "marks"),
        ("exec", "problem", "marks"),
        ("eval", "problem", "marks"),
        ("rename", "warning", "save"),
        ("scan", "warning", "event_names"),
        ("expireat", "problem", "expire"),
        ("hget", "problem", "user_ids"),
        ("hkeys", "warning", "forget"),
    ],
)
def test_a_missing_right(server: Server, without: str, status: str, verbs: str) -> None:
    rights = RIGHTS.replace(f" +{without} ", " ")
    assert rights != RIGHTS
    with user(server, rights) as url:
        finding = server.found("rights", url, expire={"day": timedelta(days=9)}, user_ids=str)
    assert finding.status == status
    assert without.upper() in finding.seen
    assert verbs in finding.seen
    assert "ACL SETUSER" in finding.advice


def test_rights_to_other_keys(server: Server) -> None:
    with user(server, RIGHTS, keys="~other_*") as url:
        finding = server.found("rights", url)
    assert (finding.status, "SETBIT is denied" in finding.seen) == ("problem", True)


@pytest.mark.parametrize("rights", ["+@all", RIGHTS, RIGHTS.replace("+multi", "-multi")])
def test_the_check_of_rights_executes_nothing(server: Server, rights: str) -> None:
    with user(server, rights) as url, SyncTally.from_url(url) as tally:
        tally.doctor()
    commands = server.raw.info("commandstats")
    for name in ("setbit", "set", "del", "unlink", "eval", "bitop", "rename", "expire"):
        assert commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] == 0, name
    assert server.raw.keys("*") == []


def test_a_user_with_no_rights_but_to_connect(server: Server) -> None:
    with user(server, "+@connection") as url:
        diagnosis = server.examine(url)
    assert found(diagnosis, "rights").status == "problem"
    assert found(diagnosis, "key types").status == "skipped"
    assert found(diagnosis, "key types").seen == "SCAN is denied to this Redis user"
    assert found(diagnosis, "memory").seen == "INFO is denied to this Redis user"


# --- logins


def with_login(url: str, login: str) -> str:
    return url.replace("//", f"//{login}@")


@pytest.mark.parametrize("options", [{}, {"user_ids": str}, {"shards": 2}])
@pytest.mark.parametrize("protocol", ["", "?protocol=3"])
async def test_a_login_that_is_refused(
    facade: Facade, server: Server, protocol: str, options: dict[str, Any]
) -> None:
    with user(server, "+@all") as url:
        wrong = url.replace("secret", "wrong") + protocol
        async with facade.open(wrong, **options) as tally:
            with pytest.raises(PermissionDeniedError, match="password"):
                await tally.doctor()
        with server.configured(requirepass="pw"):
            server.raw.auth("pw")
            async with facade.open(server.url + protocol, **options) as tally:
                with pytest.raises(PermissionDeniedError, match="NOAUTH"):
                    await tally.doctor()
            right = with_login(server.url, ":pw") + protocol
            async with facade.open(right, read_from=server.url, **options) as tally:
                with pytest.raises(PermissionDeniedError, match="NOAUTH"):
                    await tally.doctor()
            async with facade.open(right, **options) as tally:
                assert found(await tally.doctor(), "rights").status == "ok"


@pytest.mark.parametrize("options", [{}, {"user_ids": str}])
async def test_a_login_that_a_client_does_not_make(
    facade: Facade, server: Server, options: dict[str, Any]
) -> None:
    """A connection that begins without HELLO is refused at its first command."""
    with server.configured(requirepass="pw"):
        server.raw.auth("pw")
        async with facade.open(f"{server.url}?protocol=2", **options) as tally:
            with pytest.raises(PermissionDeniedError, match="NOAUTH"):
                await tally.doctor()


async def test_a_server_that_is_not_ready(facade: Facade, server: Server) -> None:
    """Nothing is found out then, which is not the same as that nothing is wrong."""
    with server.configured(lua_time_limit=10):
        script = threading.Thread(target=run_forever, args=[server.url])
        script.start()
        try:
            while not is_busy(server):
                pass
            async with facade.open(server.url) as tally:
                with pytest.raises(StoreNotReadyError, match="BUSY"):
                    await tally.doctor(timeout=0.2)
        finally:
            server.raw.script_kill()
            script.join()


def run_forever(url: str) -> None:
    with redis.Redis.from_url(url) as raw, pytest.raises(redis.ResponseError):
        raw.eval("while true do end", 0)


def is_busy(server: Server) -> bool:
    try:
        server.raw.ping()
    except redis.ResponseError:
        return True
    return False


# --- all verbs


def verbs(tally: Any, users: list[Any]) -> dict[str, list[Callable[[], Any]]]:
    """Return calls by what `doctor` says of them; those that delete much are the last ones."""
    one, two, new, *others = users
    both = tally.day("a", DAY) & tally.day("b", DAY)
    calls: dict[str, list[Callable[[], Any]]] = {
        "marks": [
            lambda: tally.mark_event("a", new, now=DAY),
            lambda: tally.mark_event("a", one, now=DAY),
            lambda: tally.mark_unique("a", one),
            lambda: tally.unmark_event("b", two, now=DAY),
            lambda: tally.mark_many("a", others[:2], now=DAY),
        ],
        "mark_many": [
            lambda: tally.mark_many("c", others, now=DAY),
            lambda: tally.mark_rows([("d", other, DAY) for other in others]),
        ],
        "counts": [
            lambda: tally.count(tally.day("a", DAY)),
            lambda: tally.count(both),
            lambda: tally.is_empty(both),
        ],
        "reads": [
            lambda: tally.contains(both, one),
            lambda: tally.contains_many(both, users),
            lambda: list(tally.users(both)),
            lambda: tally.history(one, "a", DAY),
        ],
        "reports": [
            lambda: tally.retention("a", "a", by="day", until=DAY, periods=2, cohorts=2),
            lambda: tally.lifecycle("a", by="day", until=DAY, periods=2),
            lambda: tally.streaks("a", until=DAY),
        ],
        "event_names": [tally.event_names, lambda: tally.periods("a", "day")],
        "export": [lambda: list(tally.export())],
        "exact": [lambda: tally.unmark_event("a", two, now=DAY, exact=True)],
        "save": [lambda: tally.save(both, as_="saved")],
        "merge": [lambda: tally.merge(two, one), lambda: tally.merge(others[0], others[1])],
        "forget": [lambda: tally.forget(two)],
        "delet": [
            lambda: tally.delete(tally.unique("a")),
            lambda: tally.delete_before(DAY),
            lambda: tally.delete_all("trackist_"),
        ],
    }
    if tally.backend.context.options.lifetimes:
        calls["apply_expiry"] = [tally.apply_expiry]
        calls["delet"] = calls.pop("delet")
    return calls


#: What a mark or a count that fails has to make of the finding.
VITAL = {"marks", "counts", "reads", "reports"}

#: What else a finding may say.
OTHERWISE = {
    "reads": ["counts", "marks"],  # who is marked has a number, by which reads look
    "reports": ["counts"],
    "event_names": ["counts"],
    "export": ["reads", "counts"],
    "exact": ["marks"],
    "merge": ["marks"],
    "forget": ["marks"],
    "mark_many": ["marks"],
    "apply_expiry": [],
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user_ids": str},
        {"shards": 2, "expire": {"day": timedelta(days=36_500)}},
        {"shards": 2, "user_ids": uuid.UUID},
    ],
)
def test_what_fails_without_a_right_is_told(server: Server, options: dict[str, Any]) -> None:
    make: dict[Any, Any] = {str: str, uuid.UUID: lambda number: uuid.UUID(int=number + 1)}
    users = list(map(make.get(options.get("user_ids"), int), range(60)))
    told = 0
    for right in RIGHTS.split():
        server.raw.flushall()
        with SyncTally.from_url(server.url, **options) as tally:
            for event, marked in (("a", users[:2]), ("b", users[:2]), ("b", users[3:8])):
                for each in marked:
                    tally.mark_event(event, each, now=DAY)
            tally.mark_event("b", users[0], now=DAY - timedelta(days=3))
        with (
            user(server, RIGHTS.replace(f"{right} ", "", 1)) as url,
            SyncTally.from_url(url, **options) as tally,
        ):
            finding = found(tally.doctor(), "rights")
            for name, calls in verbs(tally, users).items():
                words = [name, *OTHERWISE.get(name, []), "every call"]
                statuses = {"problem"} if name in VITAL else {"problem", "warning"}
                for number, call in enumerate(calls):
                    if is_denied(call):
                        told += 1
                        assert any(word in finding.seen for word in words), (right, name, number)
                        assert finding.status in statuses, (right, name, number)
    assert told > 50


def is_denied(call: Callable[[], Any]) -> bool:
    try:
        call()
    except PermissionDeniedError:
        return True
    return False
