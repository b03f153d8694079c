"""What a server says about itself: ``INFO``, its configuration, its clock, its slow log. Pure.

Managed servers refuse some of these commands, and others do not know them. Then the facts are
missing, and `Unknown` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..._core.failures import is_refused_login
from ..._reading.fanout import gather
from ..._reading.requests import ListNodes, Request
from ...errors import CommandError, PermissionDeniedError, UnknownCommandError

if TYPE_CHECKING:
    from ..._core.context import Context
    from ..._reading.requests import Command, Query

__all__ = [
    "EXEC",
    "MULTI",
    "ServerFacts",
    "Unknown",
    "examine_replica",
    "examine_servers",
    "find_refusal",
    "refusal_text",
]

#: The directives that are read.
_DIRECTIVES: Final = (
    *(b"maxmemory", b"maxmemory-policy", b"save", b"maxclients", b"min-replicas-to-write"),
    *(b"lua-time-limit", b"client-output-buffer-limit", b"proto-max-bulk-len"),
    b"bitmap-default-roaring",
)

#: How many round trips are measured, and how many entries of the slow log are read.
_PINGS: Final = 5
_SLOW: Final = 128

MULTI: Final = (b"MULTI",)
EXEC: Final = (b"EXEC",)
_CLUSTER_INFO: Final = (b"CLUSTER", b"INFO")
_CLUSTER_NODES: Final = (b"CLUSTER", b"NODES")
_SLOWLOG: Final = (b"SLOWLOG", b"GET", b"%d" % _SLOW)


class Unknown(Exception):  # noqa: N818 - not an error: a check is skipped
    """A fact is not known; the message says why."""


@dataclass(frozen=True)
class ServerFacts:
    """What one server says about itself.

    Attributes:
        node: its name; empty for the only server.
        hello: the reply to ``HELLO``.
        info: the fields of ``INFO``.
        config: the directives of its configuration that are read.
        cluster: the fields of ``CLUSTER INFO``.
        nodes: the reply to ``CLUSTER NODES``.
        slow: the entries of the slow log: duration in microseconds, and arguments.
        ahead: how many seconds its clock is ahead of ours.
        round_trips: the durations of some round trips, in seconds.
        refused: why a fact is missing, by its name.
    """

    node: str = ""
    hello: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    cluster: Mapping[str, str] = field(default_factory=dict)
    nodes: str = ""
    slow: tuple[tuple[int, tuple[bytes, ...]], ...] = ()
    ahead: float | None = None
    round_trips: tuple[float, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """Return a field of ``INFO``. Raises `Unknown`."""
        return self._found("INFO", self.info, name)

    def number(self, name: str) -> float:
        """Return a field of ``INFO`` that is a number. Raises `Unknown`."""
        return _number(self.value(name), name)

    def directive(self, name: str) -> str:
        """Return a directive of the configuration. Raises `Unknown`."""
        return self._found("CONFIG GET", self.config, name)

    def setting(self, name: str) -> float:
        """Return a directive that is a number. Raises `Unknown`."""
        return _number(self.directive(name), name)

    def of_cluster(self, name: str) -> str:
        """Return a field of ``CLUSTER INFO``. Raises `Unknown`."""
        return self._found("CLUSTER INFO", self.cluster, name)

    def check(self, command: str) -> None:
        """Raise `Unknown` if a command was refused."""
        if command in self.refused:
            raise Unknown(self.refused[command])

    def _found(self, command: str, facts: Mapping[str, str], name: str) -> str:
        if name in facts:
            return facts[name]
        self.check(command)
        raise Unknown(f"this server does not report {name}")


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Unknown(f"this server reports {name} as {text[:40]!r}") from None


def examine_servers(context: Context) -> Query[list[ServerFacts]]:
    """Return the facts about all servers that have marks: the only one, or a cluster's masters."""
    nodes: list[str] = yield ListNodes()
    facts: list[ServerFacts] = []
    for node in nodes:  # one after the other, for the round trips
        facts += yield from gather(context, [(node, _examine(context, node, changes=True))])
    return facts


def examine_replica(context: Context) -> Query[ServerFacts]:
    """Return the facts about the replica from which the tally reads."""
    return _examine(context, "", changes=False)


def _examine(context: Context, node: str, *, changes: bool) -> Query[ServerFacts]:
    """Return the facts about a server.

    Arguments:
        context: the database.
        node: the name of the server.
        changes: whether it is the one that has the marks, not a replica.

    Raises:
        PermissionDeniedError: the server requires a login.
    """
    commands: list[Command] = [(b"INFO",), _SLOWLOG]
    if node:
        commands += [_CLUSTER_INFO, _CLUSTER_NODES]
    replies = yield Request(commands, tolerant=True, changes=changes)
    for reply in replies:
        if is_refused_login(reply):
            raise reply
    info, slow, *of_cluster = replies
    refused = {
        _name(command): refusal_text(_name(command), reply)
        for command, reply in zip(commands, replies, strict=True)
        if isinstance(reply, CommandError)
    }
    cluster, nodes = of_cluster or ("", "")
    hello: dict[str, str] = {}
    config: dict[str, str] = {}
    refusal = yield from find_refusal(changes=changes)
    if refusal is None:
        hello = yield from _mapping((b"HELLO",), refused, changes=changes)
        for directive in _DIRECTIVES:  # servers before 7.0 take one at a time
            config |= yield from _mapping((b"CONFIG", b"GET", directive), refused, changes=changes)
            if "CONFIG GET" in refused:
                break
    else:
        refused["CONFIG GET"] = refusal_text("MULTI", refusal)
    round_trips: list[float] = []
    ahead = None
    for _ in range(_PINGS):
        began = context.clock()
        # TIME is about as fast as PING, and tells the time.
        (reply,) = yield Request([(b"TIME",)], tolerant=True, changes=changes)
        ended = context.clock()
        if isinstance(reply, CommandError):
            refused["TIME"] = refusal_text("TIME", reply)
            break
        seconds, microseconds = map(int, reply)
        round_trips.append(ended - began)
        if round_trips[-1] == min(round_trips):  # the fastest one is the most exact one
            ahead = seconds + microseconds / 1e6 - (began + ended) / 2
    return ServerFacts(
        node=node,
        hello=hello,
        info=_fields(info),
        config=config,
        cluster=_fields(cluster),
        nodes=_text(nodes),
        slow=_slow(slow),
        ahead=ahead,
        round_trips=tuple(round_trips),
        refused=refused,
    )


def find_refusal(*, changes: bool) -> Query[CommandError | None]:
    """Return the error with which the server refuses transactions; ``None`` if it takes them.

    Arguments:
        changes: as for `Request`.
    """
    replies = yield Request([MULTI, EXEC], tolerant=True, changes=changes)
    return next((reply for reply in replies if isinstance(reply, CommandError)), None)


def _mapping(command: Command, refused: dict[str, str], *, changes: bool) -> Query[dict[str, str]]:
    """Return the reply to a command whose reply is a map, which RESP2 has as a list.

    The connection expects no map, unless it is inside of the reply to ``EXEC``. So the server has
    to take transactions.

    Arguments:
        command: the command.
        refused: gets the reason if the command is refused.
        changes: as for `Request`.
    """
    # The refusal of an atomic request is an error of all requests that are sent with it.
    commands = [MULTI, command, EXEC]
    _, reply, executed = yield Request(commands, tolerant=True, changes=changes)
    if not isinstance(reply, CommandError):
        reply = executed if isinstance(executed, CommandError) else executed[0]
    if isinstance(reply, CommandError):
        refused[_name(command)] = refusal_text(_name(command), reply)
        return {}
    items = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2])  # noqa: B905
    return {_text(name): _text(value) for name, value in items}


def _name(command: Command) -> str:
    """Return the name of a command, with that of its subcommand."""
    return " ".join(part.decode() for part in command[:2])


def refusal_text(name: str, error: CommandError) -> str:
    """Return why a command was refused, for a skipped check."""
    if isinstance(error, PermissionDeniedError):
        return f"{name} is denied to this Redis user"
    if isinstance(error, UnknownCommandError):
        return f"this server does not know {name}"
    return f"{name} is refused: {error}"


def _text(reply: Any) -> str:
    if isinstance(reply, CommandError | list):
        return ""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)


def _fields(reply: Any) -> dict[str, str]:
    """Return the fields of a reply to ``INFO`` or ``CLUSTER INFO``: ``name:value`` in each line."""
    lines = [line.partition(":") for line in _text(reply).splitlines()]
    return {name: value.strip() for name, colon, value in lines if colon}


def _slow(reply: Any) -> tuple[tuple[int, tuple[bytes, ...]], ...]:
    if not isinstance(reply, list):
        return ()
    return tuple((int(entry[2]), tuple(entry[3])) for entry in reply if len(entry) >= 4)
