"""URLs of stores: what each part says is what is used, or the URL is refused."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tallymark
from facades import ASYNC, FACADES, SYNC, internals
from tallymark import InvalidTypeError, InvalidValueError, SyncTally, Tally, TallymarkError
from tallymark import sync as tm
from tallymark._redis import defaults, memory

if TYPE_CHECKING:
    from facades import Facade
    from stores import Store

#: What a reader of URLs might take for a delimiter, or for something else.
PIECES = [
    *"aZ7:/?#[]@!$&'()*+,;=%\\^|~`<>\"{}-._ \n\t\0é\u202e\u2100",
    "s3cret",
    "//",
    "://",
    "@evil.example:1",
    ":1/0",
    "17701#",
    "?db=5",
    "?db=5&username=",
    "?password=",
    "&ssl_cert_reqs=none",
    "%2",
    "%zz",
]
HOSTS = ["localhost", "db.example", "10.0.0.1", "::1", "x-1_y"]
texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


class Found(NamedTuple):
    """What a URL leads to."""

    hosts: tuple[Any, ...]
    database: int
    user: str
    password: str
    more: tuple[str, ...] = ()


def _login(settings: Any) -> tuple[str, str]:
    provider = settings.get("credential_provider")
    if provider is not None:
        *user, password = provider.get_credentials()
        return (user[0] if user else ""), password
    return settings.get("username") or "", settings.get("password") or ""


def found(facade: Facade, url: str) -> Found:
    """Return the address and login of a tally with this URL, from the options of redis-py."""
    tally = facade.tally.from_url(url)
    store: Any = internals(tally)
    if "cluster" in url.partition("://")[0]:
        clients = store._clients
        settings = clients.settings
        return Found(tuple(clients.startup), 0, *_login(settings))
    pool = store.client.connection_pool
    settings = pool.connection_kwargs
    database, login = settings.get("db") or 0, _login(settings)
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        asked = [one.connection_pool.connection_kwargs for one in manager.sentinels]
        hosts = tuple((each["host"], each["port"]) for each in asked)
        return Found(hosts, database, *login, (pool.service_name, *_login(asked[0])))
    if "path" in settings:
        return Found((settings["path"],), database, *login)
    host = (settings.get("host", "localhost"), settings.get("port", 6379))
    return Found((host,), database, *login)


def check(facade: Facade, quoted: str, raw: str, wanted: Found, *parts: str) -> None:
    """The quoted URL leads there; the raw one too, or it is refused, and not shown."""
    assert found(facade, quoted) == wanted
    # What happens to be in percent-encoding already says something else.
    assume(not any(re.search("%[0-9a-fA-F]{2}", part) for part in parts))
    message = "urllib.parse.quote"
    try:
        reached = found(facade, raw)
    except InvalidValueError as error:
        message = str(error)
    else:
        assert reached == wanted
    assert "urllib.parse.quote" in message
    for secret in ("s3cret", "evil", "17701", "é", "\u202e"):
        assert secret not in message


@pytest.mark.parametrize("url", ["redis://", "redis:///3", "redis://?db=3"])
def test_without_a_host_it_is_this_one(facade: Facade, url: str) -> None:
    assert found(facade, url) == Found((("localhost", 6379),), 3 if "3" in url else 0, "", "")


@pytest.mark.parametrize(
    "place", ["host/3?db=3", "host?db=3", "host/?db=3", "host/03", "host/3?db=03"]
)
def test_the_database_may_be_named_twice_if_it_is_one(facade: Facade, place: str) -> None:
    assert found(facade, f"redis://{place}").database == 3
    of_sentinel = place.replace("host", "host/main")
    assert found(facade, f"redis+sentinel://{of_sentinel}").database == 3


@pytest.mark.parametrize("place", ["rediss://{}", "rediss+sentinel://{}/a", "rediss+cluster://{}"])
def test_an_option_that_redis_py_refuses_is_named(place: str) -> None:
    """Its connections of asyncio know nothing of OCSP."""
    url = place.format("u:s3cret@host")
    for query in ("ssl_validate_ocsp=0", "client_name=a&ssl_validate_ocsp=0&socket_timeout=2"):
        with pytest.raises(
            InvalidValueError, match=r"option ssl_validate_ocsp.*redis-py \d"
        ) as got:
            Tally.from_url(f"{url}?{query}")
        assert not re.search("s3cret|client_name|socket_timeout", str(got.value))


@pytest.mark.parametrize("option", ["ssl_include_verify_flags", "ssl_exclude_verify_flags"])
def test_an_option_with_an_unknown_flag_is_named(facade: Facade, option: str) -> None:
    with pytest.raises(InvalidValueError, match=option):
        facade.tally.from_url(f"rediss://host?{option}=VERIFY_S3CRET")


facades = st.sampled_from(FACADES)
numbers = st.sampled_from([0, 1, 15])


@given(facades, st.sampled_from(["redis", "rediss"]), texts, texts, st.sampled_from(HOSTS), numbers)
def test_a_server(
    facade: Facade, scheme: str, user: str, password: str, host: str, number: int
) -> None:
    place = f"{f'[{host}]' if ':' in host else host}:7000/{number}"
    check(
        facade,
        f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place}",
        f"{scheme}://{user}:{password}@{place}",
        Found(((host, 7000),), number, user, password),
        user,
        password,
    )


@given(facades, texts, texts, texts, numbers)
def test_a_socket(facade: Facade, user: str, password: str, name: str, number: int) -> None:
    assume(name.isprintable())
    path = f"/run/{name}"
    check(
        facade,
        f"unix://{quote(user, safe='')}:{quote(password, safe='')}@{quote(path)}?db={number}",
        f"unix://{user}:{password}@{path}?db={number}",
        Found((path,), number, user, password),
        user,
        password,
        path,
    )


@given(facades, st.sampled_from(["redis", "rediss"]), texts, texts, texts, texts, numbers)
def test_sentinels(
    facade: Facade, scheme: str, user: str, password: str, service: str, own: str, number: int
) -> None:
    assume(service and service.isprintable())
    assume(not re.search("&[a-z_]+=", own))  # which is another option, to the letter
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    check(
        facade,
        f"{scheme}+sentinel://{login}@a:1,b/{quote(service, safe='')}/{number}"
        f"?sentinel_username=s&sentinel_password={quote(own, safe='')}",
        f"{scheme}+sentinel://{user}:{password}@a:1,b/{service}/{number}"
        f"?sentinel_username=s&sentinel_password={own}",
        Found((("a", 1), ("b", 26379)), number, user, password, (service, "s", own)),
        user,
        password,
        service,
        own,
    )


@given(facades, st.sampled_from(["redis", "rediss"]), texts, texts)
def test_a_cluster(facade: Facade, scheme: str, user: str, password: str) -> None:
    check(
        facade,
        f"{scheme}+cluster://{quote(user, safe='')}:{quote(password, safe='')}@a:1,[::1]",
        f"{scheme}+cluster://{user}:{password}@a:1,[::1]",
        Found((("a", 1), ("::1", 6379)), 0, user, password),
        user,
        password,
    )


@given(texts)
def test_an_embedded_store(name: str) -> None:
    message = ""
    try:
        client: Any = SyncTally.from_url(f"memory://{name}").client
    except InvalidValueError as error:
        message = str(error)
    else:
        server = client.connection_pool.connection_kwargs["server"]
        assert name == "" or memory.store(name) is server
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:17701#s3cret@prod.example:6379/0",
        "redis://:17701?s3cret@prod.example:6379/0",
        "redis://:17701/0?s3cret@prod.example:6379/0",
        "redis://u:17701?db=1&client_name=@prod.example:6379/0",
        "redis://u:p@s3cret@host/0",
        "redis://u:s3:cret@host/0",
        "redis://:s3cret@/0",
        "redis://:secret@",
        "redis://user@/0",
        "redis+cluster://",
        "redis://:6379/0",
        "redis://host:",
        "redis://host:0",
        "redis://host:99999",
        "redis://host:\uff16379",
        "redis://host:6379:6379",
        "redis://host/zero",
        "redis://host/0/",
        "redis://host/-1",
        "redis://host/99999999999",
        "redis://host/" + "9" * 5000,
        "redis://host,other/0",
        "redis://host/0#s3cret",
        "redis://ho st/0",
        " redis://host/0",
        "redis://host/0\n",
        "redis://host/0\u2028",
        "redis://:s3cret\t@host/0",
        "redis://:s3cret%zz@host/0",
        "redis://:s3cret%@host/0",
        "redis://:s3cret%ff@host/0",
        "redis://ho%00st/0",
        "redis://ho%2fst/0",
        "redis://a..b/0",
        "redis://" + "a" * 64 + "/0",
        "redis://::1/0",
        "redis://[::1/0",
        "redis://[s3cret]/0",
        "redis://[::1]x/0",
        "REDIS://host/0",
        "redis://host?db=1&db=2",
        "redis://host/1?db=2",
        "redis://host/0?db=5",
        "redis:///0?db=5",
        "rediss://host/00?db=5",
        "redis+sentinel://host/main/0?db=3",
        "redis+sentinel://host/main/1?db=0",
        "redis://host?username=a&username=a",
        "redis://u:s3cret@host?password=s3cret",
        "redis://host?s3cret=1",
        "redis://host?s3cret",
        "redis://host?db=",
        "redis://host?db=one",
        "redis://host?protocol=9",
        "redis://host?socket_timeout=soon",
        "redis://host?socket_timeout=nan",
        "redis://host?socket_timeout=inf",
        "redis://host?socket_timeout=-1",
        "redis://host?socket_timeout=1e300",
        "redis://host?socket_timeout=9999999999",
        "redis://host?socket_keepalive=perhaps",
        "redis://host?max_connections=0",
        "redis://host?max_connections=9999999999",
        "redis://host?health_check_interval=1.5",
        "redis://host?retry_on_error=ValueError",
        "redis://host?encoding=s3cret",
        "redis://host?encoding=hex",
        "redis://host?encoding=utf-16",
        "redis://host?encoding_errors=s3cret",
        "redis://host?client_name=two%20words",
        "redis://host?client_name=a+b",
        "redis://host?host=other",
        "redis://host?connection_class=x",
        "redis://host?sentinel_password=s3cret",
        "redis://host?ssl_cert_reqs=none",
        "rediss://host?ssl_cert_reqs=s3cret",
        "rediss://host?ssl_cert_reqs=none&ssl_check_hostname=true",
        "rediss://host?ssl_check_hostname=maybe",
        "rediss://host?ssl_min_version=1",
        "rediss://host?ssl_include_verify_flags=S3CRET",
        "rediss://host?ssl_ca_certs=",
        "unix://",
        "unix:///",
        "unix://s3cret",
        "unix://u:17701#s3cret@/run/redis.sock",
        "unix://u:s3cret/run/redis.sock",
        "unix://u:s3/cret@/run/redis.sock",
        "unix://u:s3cret@host/run/redis.sock",
        "unix:///run/redis.sock#s3cret",
        "unix:///run/redis%00.sock",
        "redis+sentinel://u:17701#s3cret@host/main",
        "redis+sentinel://u:17701?s3cret@host/main",
        "redis+sentinel://u:s3cret@host,u:s3cret@other/main",
        "redis+sentinel://host",
        "redis+sentinel://host,/main",
        "redis+sentinel://host:0/main",
        "redis+sentinel://host/main/x",
        "redis+sentinel://host/main/0/1",
        "redis+cluster://:17701#s3cret@host:6379",
        "redis+cluster://:17701?s3cret@host:6379",
        "redis+cluster://:s3/cret@host:6379",
        "redis+cluster://host,:6379",
        "redis+cluster://host/1",
        "redis+cluster://host?db=0",
        "memory://s3cret#1",
        "memory://two words",
        "memory://s3cret\n",
        "s3cret",
        "s3cret://host",
        "",
    ],
)
def test_urls_that_are_refused(facade: Facade, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(call: Any) -> None:
        with pytest.raises(InvalidValueError) as raised:
            call()
        message = str(raised.value)
        assert not re.search("s3|cret|17701|a\\.\\.b", message, re.IGNORECASE), message
        assert len(message) < 1500

    refused(lambda: facade.tally.from_url(url))
    refused(lambda: facade.tally.from_url("redis://localhost", read_from=url))
    before = defaults.configured()
    refused(lambda: tallymark.configure(url))
    refused(lambda: tallymark.configure("redis://localhost", read_from=url))
    assert defaults.configured() is before
    if url:
        monkeypatch.setenv("TALLYMARK_URL", url)
        refused(lambda: tm.mark_event("a", 1))


@pytest.mark.parametrize("wrong", [7, b"redis://:s3cret@host", ["redis://:s3cret@host"], object()])
def test_urls_of_other_types(facade: Facade, wrong: Any) -> None:
    for call in (
        lambda: facade.tally.from_url(wrong),
        lambda: facade.tally.from_url("redis://localhost", read_from=wrong),
        lambda: tallymark.configure(wrong),
        lambda: tallymark.configure("redis://localhost", read_from=wrong),
    ):
        with pytest.raises(InvalidTypeError, match="must be a str, got a") as raised:
            call()
        assert "s3cret" not in str(raised.value)


def test_configure_refuses_what_from_url_would(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, options in (
        ("redis+cluster://host", {"read_from": "redis://other"}),
        ("redis://host", {"read_from": "replicas"}),
        ("redis://host", {"read_from": "redis+cluster://other"}),
        ("redis://host", {"shards": 2, "prefix": "{a}_"}),
    ):
        errors = []
        for call in (Tally.from_url, SyncTally.from_url, tallymark.configure):
            made: Any = call
            with pytest.raises(TallymarkError) as raised:
                made(url, **options)
            errors.append((type(raised.value), str(raised.value)))
        assert len(set(errors)) == 1, errors
    before = defaults.configured()
    monkeypatch.setitem(__import__("sys").modules, "fakeredis", None)
    with pytest.raises(tallymark.MissingExtraError):
        tallymark.configure("memory://x")
    assert defaults.configured() is before


@pytest.mark.parametrize(
    "url", ["rediss://h/0", "rediss+sentinel://h/s", "rediss+cluster://h"], ids=lambda url: url[:9]
)
def test_options_that_only_the_blocking_redis_py_has(url: str) -> None:
    """They are refused by the other facade, in every scheme."""
    url += "?ssl_validate_ocsp=1"
    with pytest.raises(InvalidValueError):
        Tally.from_url(url)
    with pytest.raises(InvalidValueError):
        Tally.from_url("redis://localhost", read_from=url)
    if importlib.util.find_spec("requests") is None:  # which redis-py needs for it
        with pytest.raises(InvalidValueError, match="requests"):
            SyncTally.from_url(url)
        return
    tallymark.configure(url)  # for one facade at least
    SyncTally.from_url(url).close()


@pytest.mark.parametrize("facade", [ASYNC, SYNC], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("socket_keepalive=no", {"socket_keepalive": False}),
        ("decode_responses=False", {"decode_responses": False}),
        ("retry_on_timeout=1", {"retry_on_timeout": True}),
        ("socket_timeout=0.5&protocol=3", {"socket_timeout": 0.5, "protocol": 3}),
        ("max_connections=7&client_name=app%3A1", {"client_name": "app:1"}),
        ("health_check_interval=0", {"health_check_interval": 0}),
        ("encoding=latin-1&encoding_errors=replace", {"encoding": "latin-1"}),
        ("", {"db": 0}),
    ],
)
def test_options_have_the_types_that_redis_py_wants(
    facade: Facade, query: str, wanted: dict[str, Any]
) -> None:
    client: Any = facade.tally.from_url(f"redis://host?{query}").client
    settings = client.connection_pool.connection_kwargs
    assert {name: settings[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("query", "requirement", "names"),
    [
        ("", "required", True),
        ("ssl_cert_reqs=required", "required", True),
        ("ssl_cert_reqs=CERT_REQUIRED", "required", True),
        ("ssl_cert_reqs=optional", "optional", True),
        ("ssl_cert_reqs=CERT_NONE", "none", False),
        ("ssl_cert_reqs=None", "none", False),
        ("ssl_cert_reqs=ssl.CERT_NONE", "none", False),
        ("ssl_check_hostname=false", "required", False),
    ],
)
def test_spellings_of_what_is_checked(
    facade: Facade, query: str, requirement: str, names: bool
) -> None:
    client: Any = facade.tally.from_url(f"rediss://host?{query}").client
    settings = client.connection_pool.connection_kwargs
    assert settings["ssl_cert_reqs"] == requirement
    assert settings["ssl_check_hostname"] is names


async def test_a_quoted_password_logs_in(facade: Facade, redis_store: Store) -> None:
    """Through redis-py, to the server, byte for byte."""
    password = "#?/@:%25 +é\n\0"
    redis_store.raw.execute_command("ACL", "SETUSER", "a#p", "on", f">{password}", "~*", "+@all")
    try:
        login = f"{quote('a#p', safe='')}:{quote(password, safe='')}"
        for more in ("", "?protocol=3"):
            url = redis_store.url.replace("://", f"://{login}@") + more
            async with facade.open(url) as tally:
                await tally.mark_event("a", 1)
                assert await tally.count(tally.day("a")) == 1
                assert "a#p" in {each["user"] for each in redis_store.raw.client_list()}
    finally:
        redis_store.raw.execute_command("ACL", "DELUSER", "a#p")
