"""Faults of a store, for tests of error handling: what they are, and those of an embedded store."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from redis.exceptions import TimeoutError as RedisTimeoutError

from . import memory
from .clocks import clocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["OOM", "EmbeddedFaults", "Fault", "FaultKind", "is_denied"]

FaultKind = Literal["unavailable", "slow", "full"]

#: What Redis replies to commands that may need memory, once ``maxmemory`` is reached.
OOM: Final = "OOM command not allowed when used memory > 'maxmemory'."

#: Commands that Redis refuses then: those with the flag ``denyoom`` that programs with bitmaps,
#: and dictionaries of ids, use.
_DENIED: Final = frozenset(
    b"append bitfield bitop copy decr decrby getset hincrby hmset hset hsetnx incr incrby "
    b"linsert lpush lset mset msetnx psetex restore rpush sadd sdiffstore set setbit setex setnx "
    b"setrange sinterstore sunionstore xadd zadd zincrby".split()
)
#: Commands that write, and need no memory.
_FREEING: Final = frozenset(
    b"del expire expireat getdel hdel lpop ltrim persist pexpire pexpireat rename rpop spop srem "
    b"unlink zrem".split()
)
_CALL: Final = re.compile(rb"redis\.p?call\(\s*['\"](\w+)['\"]", re.IGNORECASE)

#: How often, in seconds, an async connection looks whether its wait is over.
_INTERVAL: Final = 0.01


@dataclass(frozen=True, eq=False)
class Fault:
    """A fault of a store.

    Attributes:
        kind: ``"unavailable"``: connections break, and new ones are refused; ``"slow"``: requests
            reach the store late; ``"full"``: the store refuses what may need memory.
        seconds: how late, if it is slow; ``math.inf`` for not before the end of the fault.
        over: set when the fault ends.
    """

    kind: FaultKind
    seconds: float = math.inf
    over: threading.Event = field(default_factory=threading.Event)


def is_denied(command: Sequence[bytes]) -> bool:
    """Return whether Redis refuses a command if ``maxmemory`` is reached."""
    name = command[0].lower()
    if name == b"eval":
        # Redis refuses the first call that writes, if it needs memory; what follows an allowed
        # one is allowed too, or the script would be half done. Which call is the first one may
        # depend on data: here it is the first one in the text.
        calls = (called.lower() for called in _CALL.findall(command[1]))
        return next(
            (call in _DENIED for call in calls if call in _DENIED or call in _FREEING), False
        )
    return name in _DENIED or name == b"evalsha"


class EmbeddedFaults:
    """The fault of an embedded store, at most one at a time."""

    def __init__(self, name: str) -> None:
        """Begin without a fault; the argument is the name of the store."""
        self._server: Any = memory.store(name)
        self._acl = self._server.acl

    def inject(self, fault: Fault | None) -> None:
        """Replace the fault of the store; ``None`` for none."""
        kind = None if fault is None else fault.kind
        self._server.connected = kind != "unavailable"
        self._server.acl = _FullAcl(self._acl) if kind == "full" else self._acl
        if fault is not None and kind == "slow":
            _slow[self._server] = fault
            _slow_down()
        else:
            _slow.pop(self._server, None)


class _FullAcl:
    """The access control list of a store that is full: fakeredis asks it before each command."""

    def __init__(self, acl: Any) -> None:
        self._acl = acl

    def __getattr__(self, name: str) -> Any:
        return getattr(self._acl, name)

    def validate_command(self, *arguments: Any) -> None:
        from fakeredis._helpers import SimpleError  # noqa: PLC0415 - an optional dependency

        self._acl.validate_command(*arguments)
        if is_denied(arguments[-1]):
            raise SimpleError(OOM)


#: The slow stores of this process.
_slow: dict[Any, Fault] = {}


def _slow_down() -> None:
    """Have the connections to slow stores wait before they send, from now on."""
    from fakeredis import FakeRedisConnection, aioredis  # noqa: PLC0415 - an optional dependency

    kinds: tuple[tuple[Any, Any], ...] = (
        (FakeRedisConnection, _waiting),
        (aioredis.FakeAsyncRedisConnection, _waiting_async),
    )
    for kind, waiting in kinds:
        if "send_packed_command" not in vars(kind):
            kind.send_packed_command = waiting(kind.send_packed_command)


def _waiting(send: Any) -> Any:
    def send_packed_command(connection: Any, *arguments: Any, **options: Any) -> None:
        fault = _slow.get(connection._server)  # noqa: SLF001
        if fault is not None:
            limit = connection.socket_timeout or math.inf
            seconds = min(fault.seconds, limit)
            over = fault.over.wait(None if seconds == math.inf else seconds)
            if not over and limit <= fault.seconds:
                raise RedisTimeoutError("the embedded store is slow")
        send(connection, *arguments, **options)

    return send_packed_command


def _waiting_async(send: Callable[..., Any]) -> Any:
    async def send_packed_command(connection: Any, *arguments: Any, **options: Any) -> None:
        fault = _slow.get(connection._server)  # noqa: SLF001
        if fault is not None:
            end = clocks.monotonic() + fault.seconds
            # At the deadline of the call, its driver closes the connection. The block of the
            # outage may end in another thread.
            while connection.is_connected and not fault.over.is_set():
                left = end - clocks.monotonic()
                if left <= 0:
                    break
                await asyncio.sleep(min(left, _INTERVAL))
            if not connection.is_connected:
                raise RedisTimeoutError("the embedded store is slow")
        await send(connection, *arguments, **options)

    return send_packed_command
