"""The effects of queries: requests to send, computations, pages of results. Pure.

A query is a generator. It yields one effect at a time, is sent the effect's outcome, and
returns the result. If the effect fails, the `StoreError` is raised at the ``yield``, so a query
can add to its message. So each verb that reads is written once, for both drivers.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from .._core import encoding
from .._core.failures import RedirectedError, copied, unexpected_reply
from ..errors import CommandError, StoreError, StoreNotReadyError

if TYPE_CHECKING:
    from .._core.batches import Batch

__all__ = [
    "MANY_COMMANDS",
    "Checkpoint",
    "Command",
    "Compute",
    "ListNodes",
    "Page",
    "Query",
    "QueryEffect",
    "Request",
    "Route",
    "Scatter",
    "check_replies",
    "encode_request",
    "in_steps",
    "run_steps",
    "send",
]

#: How many items `in_steps` takes between two checkpoints, at a few microseconds each.
_ITEMS: Final = 1000

#: A command's name and arguments.
Command = tuple[bytes, ...]

#: How many commands are encoded in one step.
_STEP: Final = 128

#: How many commands can be encoded in less than a millisecond.
MANY_COMMANDS: Final = 512


class Request(NamedTuple):
    """Commands that are sent with one write; the query is sent the list of their replies.

    Attributes:
        commands: one or more commands.
        atomic: whether to send them as a transaction, in ``MULTI``/``EXEC``.
        tolerant: whether error replies are returned among the replies; else the first one is
            raised.
        meanwhile: steps of a computation to run until the replies arrive, as in `Compute`.
        share: how many requests of this cost may be sent together without blocking the
            server for long; 1 if it should be sent alone.
        replies: the type of all replies.
        changes: whether the commands write, and so cannot be sent to a replica.
        encoded: the bytes to send instead of ``commands``: the same commands on the keys of
            another shard.
        cached: the encoding of ``commands``, if it has been computed already.
    """

    commands: Sequence[Command]
    atomic: bool = False
    tolerant: bool = False
    meanwhile: Iterator[None] | None = None
    share: int = 1
    changes: bool = False
    replies: type = int
    encoded: bytes | None = None
    cached: bytes | None = None

    def encode(self) -> bytes:
        """Return the bytes to send."""
        if self.encoded is not None:
            return self.encoded
        if self.cached is not None:
            return self.cached
        encoded = [encoding.command(*command) for command in self.commands]
        if self.atomic:
            encoded = [encoding.MULTI, *encoded, encoding.EXEC]
        return b"".join(encoded)

    def encoding(self) -> Generator[None, None, bytes]:
        """Return the encoding of ``commands``; yields between steps."""
        encoded = [encoding.MULTI] if self.atomic else []
        for count, command in enumerate(self.commands):
            if count % _STEP == _STEP - 1:
                yield
            encoded.append(encoding.command(*command))
        if self.atomic:
            encoded.append(encoding.EXEC)
        return b"".join(encoded)

    def reply_count(self) -> int:
        """Return how many replies the server sends."""
        return len(self.commands) + 2 * self.atomic

    def parse(self, replies: Sequence[Any]) -> list[Any]:
        """Return the reply to each of the commands.

        Arguments:
            replies: the server's replies, with a `CommandError` for each error reply.

        Raises:
            CommandError: the server refused a command.
            StoreError: the replies do not fit the commands.
        """
        results = list(replies)
        if self.atomic:
            *queued, executed = replies
            if isinstance(executed, CommandError):
                errors = [reply for reply in queued if isinstance(reply, CommandError)]
                raise _refusal(errors[0] if errors else executed)
            if not isinstance(executed, list) or len(executed) != len(self.commands):
                raise unexpected_reply(executed)
            results = executed
        if not self.tolerant and not {self.replies}.issuperset(map(type, results)):
            for reply in results:
                if isinstance(reply, CommandError):
                    raise _refusal(reply)
            raise unexpected_reply(
                next(reply for reply in results if type(reply) is not self.replies)
            )
        return results


#: The target of a request in a sharded database: the number of a shard, or the name of a node.
Route = int | str


class ListNodes(NamedTuple):
    """Asks for the nodes that have the shards; the query is sent the list of their names."""


class Scatter(NamedTuple):
    """Requests to several shards or nodes; the query is sent the list of their outcomes.

    An outcome is the list of the replies; or the `SlotMovingError` of a request whose slot is
    migrating, which the query has to replace by other requests.

    Attributes:
        parts: the requests, each with its route.
    """

    parts: Sequence[tuple[Route, Request]]

    @property
    def meanwhile(self) -> Iterator[None] | None:
        """The steps of computations to run until all replies arrive; ``None`` for none."""
        works = [part.meanwhile for _, part in self.parts if part.meanwhile is not None]
        return itertools.chain.from_iterable(works) if works else None

    @property
    def share(self) -> int:
        """How many scatters like this one may be sent together to one server."""
        return max(1, min(part.share for _, part in self.parts) // len(self.parts))

    @property
    def changes(self) -> bool:
        """Whether any of the requests writes."""
        return any(part.changes for _, part in self.parts)

    def encode(self) -> bytes:
        """Return the bytes to send to a server that has all shards."""
        return b"".join([part.encode() for _, part in self.parts])

    def reply_count(self) -> int:
        """Return how many replies that server sends."""
        return sum([part.reply_count() for _, part in self.parts])

    def parse(self, replies: Sequence[Any]) -> list[list[Any]]:
        """Return the replies to each of the requests. Raises as `Request.parse`."""
        at = 0
        answers = []
        for _, part in self.parts:
            count = part.reply_count()
            answers.append(part.parse(replies[at : at + count]))
            at += count
        return answers


class Compute(NamedTuple):
    """A long computation; the query is sent ``None`` when it is complete.

    An async driver runs it in a worker thread, which pauses between steps for other threads
    to run, so a step should take no more than about a millisecond.

    Attributes:
        steps: an iterator that does one step for each item.
        pauses: whether the thread has to pause even if numpy is installed, since the steps
            hold the GIL. Without numpy, it always pauses.
    """

    steps: Iterator[None]
    pauses: bool = False


class Checkpoint(NamedTuple):
    """A point inside a long computation; the query is sent ``None``.

    The driver ends the query here if its deadline has passed, and an async driver lets other
    tasks run if none has run for some milliseconds. A checkpoint takes almost no time, so a
    query should yield one every few milliseconds, whatever the input.
    """


class Page(NamedTuple):
    """A part of the result of a query whose result is a stream; the query is sent ``None``.

    Attributes:
        items: the part: a sequence of items, or a `Batch`.
    """

    items: Sequence[Any] | Batch[Any]


AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")
#: The effects that a query may yield.
QueryEffect = Request | Scatter | ListNodes | Compute | Checkpoint | Page
Query = Generator[QueryEffect, Any, AnswerT]


def in_steps(items: Iterable[ItemT], step: int = _ITEMS) -> Generator[Checkpoint, Any, list[ItemT]]:
    """Return the items of an iterable as a list, with checkpoints in between.

    Arguments:
        items: an iterable whose items take some time to compute.
        step: how many items to take between two checkpoints.
    """
    iterator = iter(items)
    result: list[ItemT] = []
    while chunk := list(itertools.islice(iterator, step)):
        result += chunk
        if len(chunk) < step:
            break
        yield Checkpoint()
    return result


def run_steps(
    steps: Generator[None, None, AnswerT], *, large: bool, pauses: bool = True
) -> Query[AnswerT]:
    """Run a computation, off the event loop if it is large; return its result.

    Arguments:
        steps: the computation: a generator that yields between steps.
        large: whether it may take more than about a millisecond.
        pauses: as in `Compute`.
    """
    if not large:
        try:
            while True:
                next(steps)
        except StopIteration as end:
            result: AnswerT = end.value
            return result
    results: list[AnswerT] = []

    def with_result() -> Iterator[None]:
        results.append((yield from steps))

    yield Compute(with_result(), pauses)
    return results[0]


def encode_request(request: Request) -> Query[Request]:
    """Return a request of many commands with its encoding, computed off the event loop."""
    data = yield from run_steps(request.encoding(), large=True)
    return request._replace(cached=data)


def send(request: Request) -> Query[list[Any]]:
    """Send a request, and return the replies. Many commands are encoded off the event loop."""
    if len(request.commands) > MANY_COMMANDS:
        request = yield from encode_request(request)
    replies: list[Any] = yield request
    return replies


def check_replies(replies: Iterable[Any], allowed: tuple[type[CommandError], ...] = ()) -> None:
    """Raise the first error among the replies to a tolerant request.

    Arguments:
        replies: the replies.
        allowed: the classes of errors that are not raised.
    """
    for reply in replies:
        if isinstance(reply, CommandError) and not isinstance(reply, allowed):
            raise _refusal(reply)


def _refusal(error: CommandError) -> StoreError:
    """Return the error to raise for an error reply."""
    if isinstance(error, RedirectedError) and error.kind == "TRYAGAIN":
        return StoreNotReadyError(str(error))
    return copied(error, f"Redis refused: {error}")
