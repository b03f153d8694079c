"""The operations of all kinds of events: counting, membership, iteration, combination.

Events are lazy: nothing is read when they are made or combined. Each method reads Redis when
it is called.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import operator
import threading
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from .._core.keys import DEFAULT_PREFIX
from .._core.untrusted import shown
from .._reading.queries import store
from ..errors import InvalidTypeError, InvalidValueError
from .arguments import as_id
from .selections import Selection, origin_of, resolve
from .systems import get_redis, pipeline_of, tally_of, translated

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

#: Holds the result keys that this thread has stored, by system.
local_thread = threading.local()


class Keyed:
    """The users in the bitmap under a key of a system.

    Attributes:
        system: the system, by its name or its client.
    """

    system: System
    _key: str

    @property
    def redis_key(self) -> str:
        """The key of the bitmap."""
        self._store()
        return self._key

    @redis_key.setter
    def redis_key(self, key: str) -> None:
        self._key = key

    def _store(self) -> None:
        """Store the users under the key, if the class computes them."""

    def _selection(self) -> Selection:
        return Selection.of_key(self._key)

    def _event_set(self) -> tuple[SyncTally, EventSet]:
        """Return the tally to read from, and the event set to read."""
        if pipeline_of(self.system) is not None:
            raise InvalidTypeError(
                "a pipeline has no answers before it is executed: of what is read, only "
                "get_count() can be queued; else give the client as the system"
            )
        tally = tally_of(self.system)
        return tally, resolve(tally, self._selection())


class MixinIter(Keyed):
    """Iteration over the ids of the users, in ascending order."""

    def get_uuids(self) -> Iterator[int]:
        """Yield the ids of the users in ascending order, fetched in chunks.

        A mark that is made during the iteration may be seen or not.
        """
        return itertools.chain.from_iterable(self._chunks())  # in C

    def _chunks(self) -> Iterator[list[int]]:
        with translated():
            tally, event_set = self._event_set()
            yield from tally.user_chunks(event_set)

    def __iter__(self) -> Iterator[int]:
        return self.get_uuids()


class MixinBitOperations(Keyed):
    """Combination with ``&``, ``|``, ``^`` and ``~``."""

    def __invert__(self) -> BitOpNot:
        return BitOpNot(self)

    def __or__(self, other: Keyed) -> BitOpOr:
        return BitOpOr(self, other)

    def __and__(self, other: Keyed) -> BitOpAnd:
        return BitOpAnd(self, other)

    def __xor__(self, other: Keyed) -> BitOpXor:
        return BitOpXor(self, other)


class MixinEventsMisc(Keyed):
    """A test for emptiness, deletion, and comparison by key."""

    def has_events_marked(self) -> bool:
        """Return whether there is any user."""
        with translated():
            tally, event_set = self._event_set()
            return not tally.is_empty(event_set)

    def delete(self) -> None:
        """Delete the bitmap; of an operation, the one that was stored for its ``redis_key``.

        If the system is a pipeline, the command is queued there.
        """
        pipeline = pipeline_of(self.system)
        if pipeline is not None:
            pipeline.delete(self._key)
            return
        with translated():
            tally = tally_of(self.system)
            tally.delete(Selection.of_key(self._key).event_set.at(origin_of(tally)))

    def __eq__(self, other: object) -> bool:
        # Not the `redis_key` of an operation, since reading the property stores the users.
        name = other._key if isinstance(other, Keyed) else getattr(other, "redis_key", None)
        if name is None:
            return NotImplemented
        return self._key == name

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key!r}>"


class MixinCounts(Keyed):
    """The number of users; events without users are false."""

    def get_count(self) -> int:
        """Return the number of users. If the system is a pipeline, the command is queued there."""
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
    """Membership of one user, with ``in``."""

    def __contains__(self, uuid: int | str) -> bool:
        with translated():
            tally, event_set = self._event_set()
            return tally.contains(event_set, as_id(uuid))


class BitOperation(MixinIter, MixinContains, MixinCounts, MixinEventsMisc, MixinBitOperations):
    """A combination of events.

    Each method computes the users inside one transaction, which leaves no key behind, so
    there is nothing to delete afterwards. Only reading the ``redis_key`` stores a key: the
    users of that moment, until they are deleted with `delete`, `delete_runtime_bitop_keys`
    or `delete_temporary_bitop_keys`.

    Attributes:
        system: the system that was named, or else that of the events.
    """

    def __init__(self, op_name: str, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events.

        Arguments:
            op_name: ``"AND"``, ``"OR"``, ``"XOR"`` or ``"NOT"``.
            system_or_event: the first event; or a system, on which all events are read
                then, whatever their own. If it is a pipeline, a ``BITOP`` to the operation's
                key is queued there, and the program has to delete that key.
            events: the other events; none for NOT.

        Raises:
            InvalidValueError: the operation is unknown, there is no event, or NOT has
                several; or no system is named and the events are of different systems.
            InvalidTypeError: an argument is no event.
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
        for event in events:
            if not _is_event(event):
                raise InvalidTypeError(f"not an event: {shown(event)}")
        self._key = f"{_RESULT_PREFIX}{op_name}_{_joined_key(events)}"
        self._combination = _OPERATIONS[op_name](list(map(selection_of, events)))
        pipeline = pipeline_of(self.system)
        if pipeline is not None:
            if op_name == "NOT":
                raise InvalidTypeError("NOT needs answers, which a pipeline has not yet")
            _record_key(self.system, self._key)
            pipeline.bitop(op_name, self._key, *map(_key_of, events))

    def _store(self) -> None:
        if pipeline_of(self.system) is None:
            with translated():
                tally, event_set = self._event_set()
                _record_key(self.system, self._key)
                query = store(tally.backend.context, event_set, self._key.encode())
                tally.backend.reader.answer(query)

    def _selection(self) -> Selection:
        return self._combination


class BitOpAnd(BitOperation):
    """Users who are in all of some events."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events.

        Arguments:
            system_or_event, events: as for `BitOperation`.
        """
        super().__init__("AND", system_or_event, *events)


class BitOpOr(BitOperation):
    """Users who are in any of some events."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events.

        Arguments:
            system_or_event, events: as for `BitOperation`.
        """
        super().__init__("OR", system_or_event, *events)


class BitOpXor(BitOperation):
    """Users who are in an odd number of some events; with two events, in one but not both."""

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Combine events.

        Arguments:
            system_or_event, events: as for `BitOperation`.
        """
        super().__init__("XOR", system_or_event, *events)


class BitOpNot(BitOperation):
    """Users who are not in an event.

    Combined with another event, ``a & ~b`` is the difference of a and b. By itself a
    complement needs a universe: all users who have ever been marked, by month or by flag,
    with one of the events that the whole expression names. Finding their months takes a
    ``SCAN`` of the keys of the database.
    """

    def __init__(self, system_or_event: System | Keyed, *events: Keyed) -> None:
        """Make the complement of an event.

        Arguments:
            system_or_event: the event; or a system, as for `BitOperation`.
            events: after a system, the event; else none.
        """
        super().__init__("NOT", system_or_event, *events)


def delete_runtime_bitop_keys() -> None:
    """Delete the keys that operations have stored for this thread."""
    recorded = _recorded_keys()
    for system, keys in recorded.items():
        if keys:
            get_redis(system).delete(*keys)
    recorded.clear()


#: The prefix of the keys of operations, and how many characters of keys may follow.
_RESULT_PREFIX: Final = f"{DEFAULT_PREFIX}bitop_"
_MAX_JOINED_KEY: Final = 4096


def _reducer(combine: Callable[[Any, Any], Any]) -> Callable[[list[Selection]], Selection]:
    return functools.partial(functools.reduce, combine)


_OPERATIONS: Final[dict[str, Callable[[list[Selection]], Selection]]] = {
    "AND": _reducer(operator.and_),
    "OR": _reducer(operator.or_),
    "XOR": _reducer(operator.xor),
    "NOT": lambda selections: ~selections[0],
}


def selection_of(events: Any) -> Selection:
    """Return the users of events, or of any object with a ``redis_key``."""
    if isinstance(events, Keyed):
        return events._selection()  # noqa: SLF001
    return Selection.of_key(events.redis_key)


def _is_event(candidate: object) -> TypeGuard[Keyed]:
    # Not `hasattr` first: reading the `redis_key` of an operation stores its users.
    return isinstance(candidate, Keyed) or hasattr(candidate, "redis_key")


def key_name(events: Any) -> str:
    """Return the key of events, or of any object with a ``redis_key``, without storing it."""
    return events._key if isinstance(events, Keyed) else str(events.redis_key)  # noqa: SLF001


def _joined_key(events: Iterable[Any]) -> str:
    """Return one text for the keys of some events.

    The keys of shared operands repeat, so the text may double with each operation. A digest
    replaces a long one.
    """
    joined = "-".join(map(key_name, events))
    if len(joined) <= _MAX_JOINED_KEY:
        return joined
    return hashlib.sha256(joined.encode(errors="surrogatepass")).hexdigest()


def _key_of(events: Any) -> str:
    return str(events.redis_key)


def _common_system(events: tuple[Any, ...]) -> System:
    systems = [getattr(event, "system", "default") for event in events]
    first: System = systems[0]
    for other in systems[1:]:
        if other != first and get_redis(other) is not get_redis(first):
            raise InvalidValueError(
                f"events of the systems {shown(first)} and {shown(other)} cannot be combined; "
                "to read all of them on one system, name it first: BitOpAnd(system, ...)"
            )
    return first


def _record_key(system: System, key: str) -> None:
    _recorded_keys().setdefault(system, set()).add(key)


def _recorded_keys() -> dict[System, set[str]]:
    recorded: dict[System, set[str]] | None = getattr(local_thread, "bitop_keys", None)
    if recorded is None:
        local_thread.bitop_keys = recorded = {}
    return recorded
