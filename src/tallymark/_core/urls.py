"""Strict parsing of the URLs of stores, without showing their secrets. Pure.

A URL has secrets. Most parsers cut a secret with a raw ``#``, ``?``, ``/`` or ``@`` there, and
then connect to another host, or without a login. So no part may contain a character that
could be a delimiter, and no message shows any part of the URL.
"""

from __future__ import annotations

import codecs
import ipaddress
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from ..errors import InvalidTypeError, InvalidValueError, TallymarkError
from .untrusted import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Address", "Hidden", "StoreAddress", "StoreUrl"]

#: A server's host and port.
Address = tuple[str, int]

_MEMORY: Final = "memory"
_SOCKET: Final = "unix"
SCHEMES: Final = (
    "redis",
    "rediss",
    _SOCKET,
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    _MEMORY,
)

_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379

_ADVICE: Final = (
    "write what is in it as urllib.parse.quote(text, safe='') does: "
    "'#' is %23, '%' %25, '/' %2F, ':' %3A, '?' %3F, '@' %40"
)

_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(
    r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?"
)
_HOST_NAME: Final = re.compile(r"[\w.-]+")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_DECIMAL: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")
_WORD: Final = re.compile(r"[!-~]+")
_FLAGS: Final = re.compile(r"\[?\s*([A-Z0-9_]+(?:\s*,\s*[A-Z0-9_]+)*)\s*\]?")


class Hidden:
    """A secret, which `repr` does not show: error reporters show local variables by `repr`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Store a secret."""
        self._value = value

    def __repr__(self) -> str:
        """Return the same text for every secret."""
        return "<hidden>"

    def __bool__(self) -> bool:
        """Return whether the secret is not empty."""
        return bool(self._value)

    def reveal(self) -> str:
        """Return the secret. Do not store it in a local variable."""
        return self._value


class Login(NamedTuple):
    """A user, "" for the default one, and a password, "" for none."""

    user: str
    password: Hidden

    def __bool__(self) -> bool:
        """Return whether there is a user or a password."""
        return bool(self.user or self.password)


_NO_LOGIN: Final = Login("", Hidden(""))


@dataclass(frozen=True)
class StoreAddress:
    """The parts of a URL.

    Attributes:
        scheme: one of `SCHEMES`.
        hosts: the host and the port of each server, Sentinel or node.
        path: the path of a Unix socket.
        service: the name under which Sentinels monitor a master and its replicas.
        name: the name of an embedded store.
        database: the number of the database.
        login, sentinel_login: the logins for servers and for Sentinels.
        options: options of redis-py by name, with the types that redis-py expects, except
            that a password is `Hidden`, versions of TLS are numbers, and verification
            flags are names.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    name: str = ""
    database: int = 0
    login: Login = _NO_LOGIN
    sentinel_login: Login = _NO_LOGIN
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_embedded(self) -> bool:
        """Whether the store is one inside this process."""
        return self.scheme == _MEMORY

    @property
    def is_cluster(self) -> bool:
        """Whether the store is a cluster."""
        return self.scheme.endswith("+cluster")

    @property
    def is_secure(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme.startswith("rediss")


class StoreUrl:
    """The parsed URL of a store; the text of the URL is not kept.

    The constructor raises nothing, so that callers can drop the text before `address` raises.
    """

    __slots__ = ("_address", "_problem")

    def __init__(self, url: object, source: str = "") -> None:
        """Parse a URL.

        Arguments:
            url: the URL as a str, or a `StoreUrl`, which is copied. Other values, and URLs
                that are not allowed, make `address` raise.
            source: the beginning of messages, which names the source of the URL.
        """
        self._address: StoreAddress | None = None
        self._problem: TallymarkError | None = None
        if isinstance(url, StoreUrl):
            self._address, self._problem = url._address, url._problem  # noqa: SLF001
        elif not isinstance(url, str):
            self._problem = InvalidTypeError(f"a store's URL must be a str, got a {kind_of(url)}")
        else:
            try:
                self._address = _address(str.__str__(url))  # also of a subclass
            except _Unclear as unclear:
                self._problem = InvalidValueError(f"{source}{unclear}")

    def __repr__(self) -> str:
        """Return the same text for every URL."""
        return "<a store's URL>"

    @property
    def address(self) -> StoreAddress:
        """The parts of the URL.

        Raises:
            InvalidTypeError, InvalidValueError: the URL is not allowed. The message shows
                no part of the URL.
        """
        if self._address is None:
            assert self._problem is not None  # noqa: S101 - the constructor sets one of the two
            # A new instance each time: a raised one keeps its traceback.
            raise type(self._problem)(str(self._problem))
        return self._address

    @property
    def is_private(self) -> bool:
        """Whether this is ``memory://`` without a name: a new store for each tally."""
        address = self._address
        return address is not None and address.is_embedded and not address.name


class _Unclear(Exception):  # noqa: N818 - internal
    """Why a URL is refused. Never leaves this module: its traceback has the URL."""


def _unclear(what: str) -> _Unclear:
    return _Unclear(f"the store's URL does not add up: {what}; {_ADVICE}")


def _address(url: str) -> StoreAddress:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        got = "another one" if separator else "none"
        raise _Unclear(f"the URL of a store begins with one of {known}; got {got}")
    if not url.isprintable() or any(map(str.isspace, url)):
        raise _unclear("it has a space, a line break or a control character in it")
    if scheme == _MEMORY:
        if any(character in rest for character in "/?#@:"):
            raise _Unclear(
                "an embedded store is memory:// or memory://name, without host, path or options"
            )
        return StoreAddress(scheme, name=rest)
    if "#" in rest:
        raise _unclear("it has a '#' in it")
    if _BAD_PERCENT.search(rest):
        raise _unclear("it has a '%' without two hexadecimal digits behind it")
    address, _, query = rest.partition("?")
    authority, slash, path = address.partition("/")
    login, _, hosts = authority.rpartition("@")
    if "@" in path or "@" in login or "@" in query or "?" in query or login.count(":") > 1:
        raise _unclear("it has one '/', ':', '?' or '@' too many")
    user, _, password = login.partition(":")
    parsed = StoreAddress(scheme, login=Login(_decoded(user), Hidden(_decoded(password))))
    if scheme == _SOCKET:
        return _with_options(replace(parsed, path=_socket(hosts, slash + path)), None, query)
    return _with_options(*_with_servers(parsed, hosts, path), query)


def _decoded(text: str) -> str:
    """Return a text with its percent-encoding decoded."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    raise _unclear("what it has in percent-encoding is not UTF-8")


def _plain(text: str) -> str:
    """Return a text with its percent-encoding decoded, without control characters."""
    plain = _decoded(text)
    if not plain.isprintable():
        raise _unclear("it has a control character in it")
    return plain


def _socket(hosts: str, path: str) -> str:
    if hosts or len(path) < 2:
        raise _unclear("a socket's URL is unix:///path, or unix://user:password@/path")
    return _plain(path)


def _with_servers(parsed: StoreAddress, hosts: str, path: str) -> tuple[StoreAddress, int | None]:
    """Return an address with servers and service, and the number of the database in the path."""
    kind = parsed.scheme.partition("+")[2]
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service or not (path == "" or _NUMBER.fullmatch(path)):
            raise _unclear(
                f"a Sentinel's URL is {parsed.scheme}://host:port,host:port/service or, with the "
                "number of a database, .../service/0"
            )
        parsed = replace(parsed, service=_plain(service))
    elif kind == "cluster":
        if path not in {"", "0"}:
            raise _unclear(
                f"a cluster's URL is {parsed.scheme}://host:port,host:port, without the number "
                "of a database"
            )
    elif not (path == "" or _NUMBER.fullmatch(path)):
        raise _unclear(f"the path of a {parsed.scheme}:// URL is the number of a database")
    default = _SENTINEL_PORT if kind == "sentinel" else _REDIS_PORT
    if not hosts and not kind and not parsed.login:
        hosts = "localhost"  # for redis:// and redis:///0, as redis-py does
    texts = hosts.split(",") if kind else [hosts]
    parsed = replace(parsed, hosts=tuple(_host_and_port(text, default) for text in texts))
    return parsed, int(path) if path else None


def _host_and_port(text: str, default: int) -> Address:
    match = _HOST.fullmatch(text)
    if match is not None:
        port = default if match["port"] is None else int(match["port"])
        host = _ipv6(_plain(match["ipv6"])) if match["ipv6"] else _host_name(_plain(match["name"]))
        if host and 1 <= port <= 65535:
            return host, port
    raise _unclear(
        "a server is host or host:port, with a port from 1 to 65535, and an IPv6 address is in "
        "[brackets]"
    )


def _ipv6(text: str) -> str:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return ""
    return text


def _host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        return ""
    try:
        text.encode("idna")  # as name resolution does
    except UnicodeError:
        return ""
    return text.lower()


def _with_options(parsed: StoreAddress, in_path: int | None, query: str) -> StoreAddress:
    """Return an address with the options after the question mark, and the database.

    Messages have the names of known options only: the text after a raw question mark may be
    a part of a password.
    """
    options: dict[str, Any] = {}
    for item in query.split("&") if query else ():
        name, equals, text = item.partition("=")
        convert = _OPTIONS.get(name)
        if not equals or convert is None:
            raise _unclear(
                "behind '?' stands what is no option of redis-py for URLs; those are "
                + ", ".join(sorted(_OPTIONS))
            )
        if name in options:
            raise _unclear(f"the option {name} is given twice")
        if "+" in text:
            raise _unclear(
                f"the option {name} has a raw '+', which is %2B, or %20 if it is a space"
            )
        if not _fits(name, parsed):
            raise _unclear(f"the option {name} is not for {parsed.scheme}:// URLs")
        options[name] = convert(_decoded(text))
        if options[name] is None:
            raise _unclear(f"the option {name} has no such value")
    if options.get("ssl_cert_reqs") == "none" and options.get("ssl_check_hostname"):
        raise _unclear("ssl_check_hostname=True needs certificates, and ssl_cert_reqs=none none")
    return replace(
        parsed,
        login=_login(parsed.login, options, ""),
        sentinel_login=_login(parsed.sentinel_login, options, "sentinel_"),
        database=_database(in_path, options.pop("db", None)),
        options=options,
    )


def _fits(name: str, parsed: StoreAddress) -> bool:
    """Return whether an option is for URLs of this scheme."""
    if name.startswith("ssl_"):
        return parsed.is_secure
    if name.startswith("sentinel_"):
        return bool(parsed.service)
    return not (name == "db" and parsed.is_cluster)


def _login(in_authority: Login, options: dict[str, Any], prefix: str) -> Login:
    """Return a login that is before the host or in two of the options, which are removed."""
    user = options.pop(f"{prefix}username", "")
    password = options.pop(f"{prefix}password", Hidden(""))
    if (user and in_authority.user) or (password and in_authority.password):
        raise _unclear("it has two users or two passwords")
    return Login(user or in_authority.user, password or in_authority.password)


def _database(in_path: int | None, in_query: int | None) -> int:
    numbers = {number for number in (in_path, in_query) if number is not None}
    if len(numbers) > 1:
        raise _unclear("it has two numbers of databases")
    return numbers.pop() if numbers else 0


def _text(text: str) -> str | None:
    return text if text and "\0" not in text else None


def _whole(least: int, most: int) -> Callable[[str], int | None]:
    def convert(text: str) -> int | None:
        number = int(text) if _NUMBER.fullmatch(text) else -1
        return number if least <= number <= most else None

    return convert


def _seconds(text: str) -> float | None:
    seconds = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return seconds if 0 < seconds <= 1e9 else None  # about the maximum of sockets


def _switch(text: str) -> bool | None:
    return _SWITCHES.get(text.lower())


def _cert_reqs(text: str) -> str | None:
    name = text.lower().removeprefix("ssl.").removeprefix("cert_")  # also ssl.CERT_NONE
    return name if name in {"none", "optional", "required"} else None


def _flags(text: str) -> tuple[str, ...] | None:
    match = _FLAGS.fullmatch(text)
    return tuple(re.split(r"\s*,\s*", match[1])) if match else None


def _word(text: str) -> str | None:
    return text if _WORD.fullmatch(text) else None  # as CLIENT SETNAME requires


def _encoding(text: str) -> str | None:
    try:
        return text if codecs.lookup(text) and "PING".encode(text) == b"PING" else None
    except (LookupError, ValueError, TypeError):  # also for codecs that are not for text
        return None


def _encoding_errors(text: str) -> str | None:
    try:
        codecs.lookup_error(text)
    except (LookupError, ValueError):
        return None
    return text


_SWITCHES: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}

#: The options of redis-py that a URL may have, and the function that converts the value of
#: each; it returns None for a value that is not allowed.
_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "db": _whole(0, 2**31 - 1),
    "username": str,
    "password": Hidden,
    "sentinel_username": str,
    "sentinel_password": Hidden,
    "client_name": _word,
    "lib_name": _word,
    "lib_version": _word,
    "protocol": _whole(2, 3),
    "legacy_responses": _switch,
    "encoding": _encoding,
    "encoding_errors": _encoding_errors,
    "decode_responses": _switch,
    "max_connections": _whole(1, 2**16),
    "timeout": _seconds,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _switch,
    "socket_read_size": _whole(1, 2**30),
    "retry_on_timeout": _switch,
    "health_check_interval": _whole(0, 10**9),
    "ssl_keyfile": _text,
    "ssl_certfile": _text,
    "ssl_password": Hidden,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_check_hostname": _switch,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_ca_data": _text,
    "ssl_ciphers": _text,
    "ssl_min_version": {
        spelling: number
        for number, spellings in {771: "771 TLSv1.2 TLSv1_2", 772: "772 TLSv1.3 TLSv1_3"}.items()
        for spelling in spellings.split()
    }.get,
    "ssl_include_verify_flags": _flags,
    "ssl_exclude_verify_flags": _flags,
    "ssl_validate_ocsp": _switch,
    "ssl_validate_ocsp_stapled": _switch,
    "ssl_ocsp_expected_cert": _text,
}
