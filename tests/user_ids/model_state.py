"""The states of the model of user ids, and the properties that hold in each.

`model_checker` describes the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

#: How many ids there are.
_IDS: Final = 3

#: A cache, or a dictionary, without an id.
NO_NUMBERS: Final[tuple[int | None, ...]] = (None,) * _IDS

#: What a connection's ``WATCH`` may be.
NONE, ARMED, BROKEN = range(3)

#: Commands whose replies begin with a stamp, unless they are refused.
_WITH_STAMP: Final = frozenset({"script", "get"})

Command = tuple[Any, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol; a changed one is a known mistake.

    Attributes:
        watch: transactions are guarded by the ``WATCH``.
        keeps_cache: whether the cache survives a reconnect: ``""`` never, ``"stamp"`` if the
            stamp is the same, ``"counter"`` if also the counter is above all cached numbers.
        resolves_again: a write that is sent again gets its numbers anew.
        drops_after_abort: an aborted transaction drops the cache, whatever the stamp is.
        drops_after_refusal: a refused write (``READONLY``) is treated as a broken connection.
        renews_stamp: forget renews the stamp.
        compares_stamps: numbers are cached only if the script has seen the stamp that was
            read behind the ``WATCH``.
        gets_behind_watch: the stamp is read behind the ``WATCH``, not before it.
        has_journal: forget notes the number in the journal.
        clears_by_journal: a bit is cleared only while the journal has its number.
        compares_tokens: a number leaves the journal only if its token there is the last one
            that the client has seen behind its bit.
        renews_tokens: a script that clears a bit renews the number's token.
        reuses_numbers: a new id gets the lowest number that no id has.
        whole_writes: a server is not demoted between two commands of one write.
    """

    watch: bool = True
    keeps_cache: str = ""
    resolves_again: bool = True
    drops_after_abort: bool = True
    drops_after_refusal: bool = True
    renews_stamp: bool = True
    compares_stamps: bool = True
    gets_behind_watch: bool = True
    has_journal: bool = True
    clears_by_journal: bool = True
    compares_tokens: bool = True
    renews_tokens: bool = True
    reuses_numbers: bool = False
    whole_writes: bool = True


@dataclass(frozen=True)
class Bounds:
    """How much may happen.

    Attributes:
        menus: for each client, the operations that it chooses from: ``"+0"`` marks the id 0,
            ``"-0"`` unmarks it, ``"+0+1"`` marks both in one write, ``"forget 0"``.
        operations: how many operations each client begins.
        promotions, breaks, late, crashes, flushes: how many of these there are; ``late``
            counts the broken connections whose commands are executed later.
    """

    menus: tuple[tuple[str, ...], ...]
    operations: tuple[int, ...]
    promotions: int = 0
    breaks: int = 0
    late: int = 0
    crashes: int = 0
    flushes: int = 0


class Data(NamedTuple):
    """What a server holds. Sets of numbers and of ids are bit masks.

    Attributes:
        numbers: the number of each id.
        next: the counter.
        stamp: the stamp; 0 if there is none.
        bits: the bitmap.
        journal: the token of each number that is being forgotten; 0 for no such number.
        marked: the ids that the log of this server has marked last. The protocol does not
            know it: it is what the bitmap should say.
    """

    numbers: tuple[int | None, ...] = NO_NUMBERS
    next: int = 0
    stamp: int = 0
    bits: int = 0
    journal: tuple[int, ...] = (0,) * _IDS
    marked: int = 0


class Client(NamedTuple):
    """A client and its connection.

    Attributes:
        server: the server it is connected to; -1 for none.
        watch: the connection's ``WATCH``.
        work: what is unfinished: marks, as pairs of value and id; or ``("forget", id)``, with
            the remaining commands behind.
        queue: the commands of the write in progress that the server has not executed.
        replies: the replies to the others.
        cache, stamp: the number of each id, and the stamp that they belong to.
        again: the commands to send again.
    """

    server: int = -1
    watch: int = NONE
    work: tuple[Any, ...] = ()
    queue: tuple[Command, ...] = ()
    replies: tuple[Any, ...] = ()
    cache: tuple[int | None, ...] = NO_NUMBERS
    stamp: int = 0
    again: tuple[Command, ...] = ()


class Late(NamedTuple):
    """A broken connection, whose commands the server has not executed yet."""

    server: int = -1
    watch: int = NONE
    queue: tuple[Command, ...] = ()


class State(NamedTuple):
    """A state of the system; ``left`` has the operations and faults that remain."""

    data: tuple[Data, Data]
    master: int
    split: bool
    clients: tuple[Client, ...]
    late: Late
    left: tuple[int, ...]


def violation(state: State) -> str:
    """Return which property fails in a state; "" if none does."""
    for data in state.data:
        owned = 0
        for user, number in enumerate(data.numbers):
            bit = 0 if number is None else 1 << number
            if owned & bit:
                return "a number belongs to two ids"
            owned |= bit
            is_set, is_marked = bool(data.bits & bit), bool(data.marked >> user & 1)
            if is_set and not is_marked:
                return "a bit is set of an id that was not marked"
            if is_marked and not is_set:
                return "a mark is lost"
        erased = sum(1 << number for number, token in enumerate(data.journal) if token)
        if data.bits & ~owned & ~erased:
            return "a bit is set that belongs to no id"
        if owned >> data.next:
            return "a number is above the counter"
    return ""


def with_data(state: State, server: int, data: Data) -> State:
    both = (data, state.data[1]) if server == 0 else (state.data[0], data)
    return state._replace(data=both)


def with_client(state: State, index: int, client: Client) -> State:
    clients = list(state.clients)
    clients[index] = client
    return state._replace(clients=tuple(clients))


def break_watches(state: State, server: int) -> State:
    """Break the ``WATCH``es of all connections of a server."""
    clients = tuple(
        client._replace(watch=BROKEN)
        if client.server == server and client.watch == ARMED
        else client
        for client in state.clients
    )
    late = state.late
    if late.server == server and late.watch == ARMED:
        late = late._replace(watch=BROKEN)
    return state._replace(clients=clients, late=late)


def less(left: tuple[int, ...], index: int) -> tuple[int, ...]:
    return (*left[:index], left[index] - 1, *left[index + 1 :])


def canonical(state: State) -> State:
    """Number the random values in the order of their appearance: only equality matters."""
    order: list[int] = [0]
    for data in state.data:
        order += (data.stamp, *data.journal)
    for client in state.clients:
        order.append(client.stamp)
        order += [reply[1] for reply in client.replies if _has_stamp(reply)]
        order += [command[2] for command in (*client.work, *client.queue) if _has_token(command)]
    order += [command[2] for command in state.late.queue if _has_token(command)]
    new = {value: index for index, value in enumerate(dict.fromkeys(order))}
    if all(value == index for value, index in new.items()):
        return state

    def renamed(commands: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            (*command[:2], new[command[2]]) if _has_token(command) else command
            for command in commands
        )

    first, second = (
        data._replace(stamp=new[data.stamp], journal=tuple(new[token] for token in data.journal))
        for data in state.data
    )
    clients = tuple(
        client._replace(
            stamp=new[client.stamp],
            work=renamed(client.work),
            queue=renamed(client.queue),
            replies=tuple(
                (reply[0], new[reply[1]], *reply[2:]) if _has_stamp(reply) else reply
                for reply in client.replies
            ),
        )
        for client in state.clients
    )
    late = state.late._replace(queue=renamed(state.late.queue))
    return state._replace(data=(first, second), clients=clients, late=late)


def _has_stamp(reply: tuple[Any, ...]) -> bool:
    return reply[0] in _WITH_STAMP and len(reply) == 3


def _has_token(command: Any) -> bool:
    return isinstance(command, tuple) and command[0] == "end"
