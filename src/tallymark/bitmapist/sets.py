"""What all kinds of events can do: be counted, tested, listed, combined.

Nothing is read when one is built, nor when some are combined; each question goes to Redis
when it is asked, and is answered for that moment.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import operator
import threading
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from .._core.excerpts import shown
from .._core.keys import DEFAULT_PREFIX
from .._reading.queries import store
from ..errors import InvalidTypeError, InvalidValueError
from .known_users import located, origin_of
from .selections import Selection
from .systems import get_redis, pipeline_of, tally_of, translated
from .users import checked_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .._core.events import EventSet
    from .._sync.tally import SyncTally
    from .systems import System

__all__ = [
    "BitOpAnd",
    "BitOpNot",
    "BitOpOr",
    "BitOpXor",
    "BitOperation",
    "Keyed",
    "MixinBitOperations",
    "MixinContains",
    "MixinCounts",
    "MixinEventsMisc",
    "MixinIter",
    "delete_runtime_bitop_keys",
    "key_name",
    "local_thread",
    "selection_of",
]

#: Holds the keys that this thread has had written, by system.
local_thread = threading.local()


class Keyed:
    """Users under a key of a system.

    Attributes:
        system: the system, by its name or its client.
    """

    system: System
    _key: str

    @property
    def redis_key(self) -> str:
        """The key of the bitmap."""
        self._keep()
        return self._key

    @redis_key.setter
    def redis_key(self, key: str) -> None:
        self._key = key

    def _keep(self) -> None:
        """Have the users written under the key, where nothing else does."""

    def _selection(self) -> Selection:
        return Selection.of_key(self._key)

    def _event_set(self) -> tuple[SyncTally, EventSet]:
        """Return who is to be asked, and about whom."""
        if pipeline_of(self.system) is not None:
            raise InvalidTypeError(
                "a pipeline has no answers before it is executed: of what is read, only "
                "get_count() can be queued; else give the client as the system"
            )
        tally = tally_of(self.system)
        return tally, located(tally, self._selection())


class MixinIter(Keyed):
    """Can be iterated over: yields the ids of the users, in ascending order."""

    def get_uuids(self) -> Iterator[int]:
        """Yield the ids of the users in ascending order, fetched part by part.

        A mark that is made meanwhile may be seen or not.
        """
        return itertools.chain.from_iterable(self._chunks())  # in C

    def _chunks(self) -> Iterator[list[int]]:
        with translated():
            tally, event_set = self._event_set()
            yield from tally.user_chunks(event_set)

    def __iter__(self) -> Iterator[int]:
        return self.get_uuids()


class MixinBitOperations(Keyed):
    """Can be combined with ``&``, ``|``, ``^`` and ``~``."""

    def __invert__(self) -> BitOpNot:
        return BitOpNot(self)

    def __or__(self, other: Keyed) -> BitOpOr:
        return BitOpOr(self, other)

    def __and__(self, other: Keyed) -> BitOpAnd:
        return BitOpAnd(self, other)

    def __xor__(self, other: Keyed) -> BitOpXor:
        return BitOpXor(self, other)


class MixinEventsMisc(Keyed):
    """Can be tested for users, deleted, and compared by its key."""

    def has_events_marked(self) -> bool:
        """Return whether there is any user."""
        with translated():
            tally, event_set = self._event_set()
            return not tally.is_empty(event_set)

    def delete(self) -> None:
        """Delete the bitmap; of an operation, the one that was written for its ``redis_key``.

        A pipeline as the system gets the command.
        """
        pipeline = pipeline_of(self.system)
        if pipeline is not None:
            pipeline.delete(self._key)
            return
        with translated():
            tally = tally_of(self.system)
            tally.delete(Selection.of_key(self._key).event_set.at(origin_of(tally)))

    def __eq__(self, other: object) -> bool:
        # The name of an operation, whose key would be written if it were asked for.
        name = other._key if isinstance(other, Keyed) else getattr(other, "redis_key", None)
        if name is None:
            return NotImplemented
        return self._key == name

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key!r}>"


class MixinCounts(Keyed):
    """Can be counted; without users it is false."""

    def get_count(self) -> int:
        """Return how many users there are. A pipeline as the system gets the command."""
        pipeline = pipeline_of(self.system)
        if pipeline is not None:
            queued: Any = pipeline.bitcount(self._key)
            return queued  # type: ignore[no-any-return] # the pipeline, as with redis-py
        with translated():
            tally, event_set = self._event_set()
            return tally.count(event_set)

    def __len__(self) -> int:
        return self.get_count()


class MixinContains(Keyed):
    """Can be asked for one user, with ``in``."""

    def __contains__(self, uuid: int | str) -> bool:
        with translated():
            tally, event_set = self._event_set()
            return tally.contains(event_set, checked_id(uuid))


class BitOperation(MixinIter, MixinContains, MixinCounts, MixinEventsMisc, MixinBitOperations):
    """Events that are combined of others.

    It is worked out when it is asked something, inside one transaction, which leaves no
    key behind, so there is nothing to delete afterwards. Only a program that asks for the
    ``redis_key`` gets one: the users of that moment are written there, and stay until they
    are deleted, with `delete`, `delete_runtime_bitop_keys` or `delete_temporary_bitop_keys`.

    Attributes:
        system: the system of the events, or the one that was named.
    """

    def __init__(self, op_name: str, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events.

        Arguments:
            op_name: ``"AND"``, ``"OR"``, ``"XOR"`` or ``"NOT"``.
            system_or_event: the first event; or a system, on which all events are read
                then, whatever their own. A pipeline gets a ``BITOP`` to the operation's
                key, and the program deletes that.
            events: the other events; none for NOT.

        Raises:
            InvalidValueError: there is no such operation, or no event, or NOT has
                several; or no system is named and the events are of different ones.
            InvalidTypeError: something is no event.
        """
        if _is_event(system_or_event):
            events = (system_or_event, *events)
            self.system = _common_system(events)
        else:
            self.system = cast("System", system_or_event)
        if op_name not in _OPERATIONS:
            raise InvalidValueError(
                f"an operation is one of {', '.join(_OPERATIONS)}: {shown(op_name)}"
            )
        if not events or (op_name == "NOT" and len(events) > 1):
            wanted = "one event" if op_name == "NOT" else "one event or more"
            raise InvalidValueError(f"{op_name} needs {wanted}, got {len(events)}")
        for each in events:
            if not _is_event(each):
                raise InvalidTypeError(f"not an event: {shown(each)}")
        self._key = f"{_STORED}{op_name}_{_joined(events)}"
        self._combined = _OPERATIONS[op_name](list(map(selection_of, events)))
        pipeline = pipeline_of(self.system)
        if pipeline is not None:
            if op_name == "NOT":
                raise InvalidTypeError("NOT needs answers, which a pipeline has not yet")
            _remember(self.system, self._key)
            pipeline.bitop(op_name, self._key, *map(_key_of, events))

    def _keep(self) -> None:
        if pipeline_of(self.system) is None:
            with translated():
                tally, event_set = self._event_set()
                _remember(self.system, self._key)
                query = store(tally.backend.context, event_set, self._key.encode())
                tally.backend.reader.answer(query)

    def _selection(self) -> Selection:
        return self._combined


class BitOpAnd(BitOperation):
    """Users who are in all of some events."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events; see `BitOperation`."""
        super().__init__("AND", system_or_event, *events)


class BitOpOr(BitOperation):
    """Users who are in any of some events."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events; see `BitOperation`."""
        super().__init__("OR", system_or_event, *events)


class BitOpXor(BitOperation):
    """Users who are in an odd number of some events; of two, in one but not both."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events; see `BitOperation`."""
        super().__init__("XOR", system_or_event, *events)


class BitOpNot(BitOperation):
    """Users who are not in an event.

    Together with another one, ``a & ~b`` is just who is in a and not in b. By itself it
    has to know who there is: all who have ever been marked, by month or by flag, with one
    of the events that the whole expression names. To find their months takes a walk over
    the keys of the database.
    """

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Turn an event around; see `BitOperation`."""
        super().__init__("NOT", system_or_event, *events)


def delete_runtime_bitop_keys() -> None:
    """Delete the keys that operations of this thread were asked for."""
    written = _written()
    for system, keys in written.items():
        if keys:
            get_redis(system).delete(*keys)
    written.clear()


#: What the keys of operations begin with, and how many characters of keys may follow.
_STORED: Final = f"{DEFAULT_PREFIX}bitop_"
_LONGEST_NAME: Final = 4096


def _folded(combine: Callable[[Any, Any], Any]) -> Callable[[list[Selection]], Selection]:
    return functools.partial(functools.reduce, combine)


_OPERATIONS: Final[dict[str, Callable[[list[Selection]], Selection]]] = {
    "AND": _folded(operator.and_),
    "OR": _folded(operator.or_),
    "XOR": _folded(operator.xor),
    "NOT": lambda selections: ~selections[0],
}


def selection_of(events: Any) -> Selection:
    """Return the users of events, or of whatever has a ``redis_key``."""
    if isinstance(events, Keyed):
        return events._selection()  # noqa: SLF001
    return Selection.of_key(events.redis_key)


def _is_event(candidate: object) -> TypeGuard[Keyed]:
    # Not `hasattr` first: to look at an operation's key has it written.
    return isinstance(candidate, Keyed) or hasattr(candidate, "redis_key")


def key_name(events: Any) -> str:
    """Return the key of events, or of whatever has one, without having it written."""
    return events._key if isinstance(events, Keyed) else str(events.redis_key)  # noqa: SLF001


def _joined(events: Iterable[Any]) -> str:
    """Return one name for the keys of some events.

    Operations share others, so the names of all of them, written out, may double with each
    operation. A long one stands for itself by its digest.
    """
    names = "-".join(map(key_name, events))
    if len(names) <= _LONGEST_NAME:
        return names
    return hashlib.sha256(names.encode(errors="surrogatepass")).hexdigest()


def _key_of(events: Any) -> str:
    return str(events.redis_key)


def _common_system(events: tuple[Any, ...]) -> System:
    systems = [getattr(each, "system", "default") for each in events]
    first: System = systems[0]
    for other in systems[1:]:
        if other != first and get_redis(other) is not get_redis(first):
            raise InvalidValueError(
                f"events of the systems {shown(first)} and {shown(other)} cannot be combined; "
                "to read all of them on one system, name it first: BitOpAnd(system, ...)"
            )
    return first


def _remember(system: System, key: str) -> None:
    _written().setdefault(system, set()).add(key)


def _written() -> dict[System, set[str]]:
    found: dict[System, set[str]] | None = getattr(local_thread, "bitop_keys", None)
    if found is None:
        local_thread.bitop_keys = found = {}
    return found
