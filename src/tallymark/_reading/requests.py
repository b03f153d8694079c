"""What a query asks of its driver: commands to send, work to do, results to hand on. Pure.

A query is a generator. It yields one of these at a time, is sent what came of
it, and returns the answer; so each verb is written once, and whether anybody
awaits anything is the driver's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from .._core import resp as wire
from .._core.failures import RedirectedError, copied, unexpected_reply
from ..errors import CommandError, StoreError, StoreNotReadyError

__all__ = [
    "MANY_COMMANDS",
    "Checkpoint",
    "Command",
    "Compute",
    "Effect",
    "ListNodes",
    "Page",
    "Query",
    "Request",
    "Route",
    "Scatter",
    "answered",
    "encoded",
    "in_steps",
    "worked",
]

#: After so many items of a long loop there is a `Checkpoint`. A few microseconds each.
_ITEMS: Final = 1000

#: A command's name and arguments.
Command = tuple[bytes, ...]

#: How many commands are encoded in one step, and how many in less than a millisecond.
_STEP: Final = 128
MANY_COMMANDS: Final = 512


class Request(NamedTuple):
    """Commands that are sent with one write; the query is sent their replies, as a list.

    Attributes:
        commands: one or more.
        atomic: whether they have to see one moment, in ``MULTI``/``EXEC``.
        tolerant: whether the query wants errors of commands among the replies;
            else the first one is raised.
        meanwhile: steps of `Compute` to do until the replies are there.
        share: how many requests like this one may go together without holding
            up the server for long; 1 if it should go alone.
        replies: of which type all replies are.
        changes: whether it changes bitmaps, which no replica would let it.
        encoded: the bytes to send, if they are not those of the commands: these stand
            for the same ones on other keys.
        ready: the bytes of the commands, if they are encoded already.
    """

    commands: Sequence[Command]
    atomic: bool = False
    tolerant: bool = False
    meanwhile: Iterator[None] | None = None
    share: int = 1
    changes: bool = False
    replies: type = int
    encoded: bytes | None = None
    ready: bytes | None = None

    def encode(self) -> bytes:
        """Return the bytes to send."""
        if self.encoded is not None:
            return self.encoded
        if self.ready is not None:
            return self.ready
        encoded = [wire.command(*command) for command in self.commands]
        if self.atomic:
            encoded = [wire.MULTI, *encoded, wire.EXEC]
        return b"".join(encoded)

    def encoding(self) -> Generator[None, None, bytes]:
        """Return the bytes of the commands, step by step."""
        encoded = [wire.MULTI] if self.atomic else []
        for count, command in enumerate(self.commands):
            if count % _STEP == _STEP - 1:
                yield
            encoded.append(wire.command(*command))
        if self.atomic:
            encoded.append(wire.EXEC)
        return b"".join(encoded)

    def reply_count(self) -> int:
        """Return how many replies the server gives."""
        return len(self.commands) + 2 * self.atomic

    def parse(self, replies: Sequence[Any]) -> list[Any]:
        """Return what the commands came to, each.

        Arguments:
            replies: the server's, with a `CommandError` wherever it gave an error.

        Raises:
            CommandError: it refused a command.
            StoreError: the replies do not fit the commands.
        """
        found = list(replies)
        if self.atomic:
            *queued, executed = replies
            if isinstance(executed, CommandError):
                refusals = [reply for reply in queued if isinstance(reply, CommandError)]
                raise _own(refusals[0] if refusals else executed)
            if not isinstance(executed, list) or len(executed) != len(self.commands):
                raise unexpected_reply(executed)
            found = executed
        if not self.tolerant and not {self.replies}.issuperset(map(type, found)):
            for reply in found:
                if isinstance(reply, CommandError):
                    raise _own(reply)
            raise unexpected_reply(
                next(reply for reply in found if type(reply) is not self.replies)
            )
        return found


#: Where a request goes in a sharded database: a shard's number, or one of `ListNodes`.
Route = int | str


class ListNodes(NamedTuple):
    """The servers that hold the shards; the query is sent what they are called."""


class Scatter(NamedTuple):
    """Requests to several places; the query is sent what each of them came to, in order.

    That is the list of the replies, or the `SlotMovingError` of a request that has to
    find another way.

    Attributes:
        parts: where each of them goes.
    """

    parts: Sequence[tuple[Route, Request]]

    @property
    def meanwhile(self) -> Iterator[None] | None:
        """Steps of `Compute` to do until all replies are there."""
        works = [part.meanwhile for _, part in self.parts if part.meanwhile is not None]
        return itertools.chain.from_iterable(works) if works else None

    @property
    def share(self) -> int:
        """How many rounds like this one may go together to one server."""
        return max(1, min(part.share for _, part in self.parts) // len(self.parts))

    @property
    def changes(self) -> bool:
        """Whether any of them changes bitmaps."""
        return any(part.changes for _, part in self.parts)

    def encode(self) -> bytes:
        """Return the bytes to send, if one server holds all places."""
        return b"".join([part.encode() for _, part in self.parts])

    def reply_count(self) -> int:
        """Return how many replies that server gives."""
        return sum([part.reply_count() for _, part in self.parts])

    def parse(self, replies: Sequence[Any]) -> list[list[Any]]:
        """Return what each of the requests came to. Raises as `Request.parse`."""
        at = 0
        answers = []
        for _, part in self.parts:
            count = part.reply_count()
            answers.append(part.parse(replies[at : at + count]))
            at += count
        return answers


class Compute(NamedTuple):
    """Something that takes the processor long; the query is sent ``None`` when it is done.

    An async driver does it in a thread, and lets other threads in between two
    steps, so a step should take no more than about a millisecond.

    Attributes:
        steps: does one step whenever it is asked for the next item.
        pauses: whether the thread has to pause between them for others to run, since
            they are in Python; if not, it does so without numpy.
    """

    steps: Iterator[None]
    pauses: bool = False


class Checkpoint(NamedTuple):
    """A place in a long computation; the query is sent ``None``.

    A driver ends the query here if its time is up, and an async one lets other tasks
    run if none has for some milliseconds. It costs next to nothing, so there should be
    one every few milliseconds, whatever the input.
    """


class Page(NamedTuple):
    """A part of the answer of a query whose answer is a stream; the query is sent ``None``."""

    items: Sequence[Any]


AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")
#: What a query may yield.
Effect = Request | Scatter | ListNodes | Compute | Checkpoint | Page
Query = Generator[Effect, Any, AnswerT]


def in_steps(items: Iterable[ItemT], step: int = _ITEMS) -> Generator[Checkpoint, Any, list[ItemT]]:
    """Return items that take some time to make as a list.

    Arguments:
        items: the items.
        step: after how many of them there is a `Checkpoint`.
    """
    rest = iter(items)
    found: list[ItemT] = []
    while some := list(itertools.islice(rest, step)):
        found += some
        if len(some) < step:
            break
        yield Checkpoint()
    return found


def worked(
    steps: Generator[None, None, AnswerT], *, large: bool, pauses: bool = True
) -> Query[AnswerT]:
    """Take some steps, off the event loop if they are many; return what they come to.

    Arguments:
        steps: what to do.
        large: whether they are many.
        pauses: as in `Compute`.
    """
    if not large:
        try:
            while True:
                next(steps)
        except StopIteration as end:
            answer: AnswerT = end.value
            return answer
    found: list[AnswerT] = []

    def kept() -> Iterator[None]:
        found.append((yield from steps))

    yield Compute(kept(), pauses)
    return found[0]


def encoded(request: Request) -> Query[Request]:
    """Return a request of many commands, with their bytes made off the event loop."""
    data = yield from worked(request.encoding(), large=True)
    return request._replace(ready=data)


def answered(request: Request) -> Query[list[Any]]:
    """Send commands, which may be many, and return their replies."""
    if len(request.commands) > MANY_COMMANDS:
        request = yield from encoded(request)
    replies: list[Any] = yield request
    return replies


def _own(error: CommandError) -> StoreError:
    if isinstance(error, RedirectedError) and error.kind == "TRYAGAIN":
        return StoreNotReadyError(str(error))
    return copied(error, f"Redis refused: {error}")
