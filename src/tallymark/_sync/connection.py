"""The blocking driver's connection that several threads share: connect, send, receive, close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .._redis.blocking_stream import BlockingStream

if TYPE_CHECKING:
    from .._cluster.handshake import Handshake
    from .._marking.number_cache import NumberCache

__all__ = ["Connection", "shake_hands"]


class Source(Protocol):
    """Makes the connection of a `Connection`.

    Attributes:
        owned: whether the tally made the client.
    """

    owned: bool

    def connect_into(self, held: list[Any], deadline: float) -> None:
        """Connect a connection of redis-py, and put it into an empty list."""

    def release_shared(self, held: list[Any], *, intact: bool) -> None:
        """Release the connection in a list, if there is one."""


class Connection:
    """One connection of a redis-py client, for one exchange at a time.

    With a client that the tally made, the connection is made outside the client's pool and
    kept as long as it works. With a client of the caller's, the connection is acquired from
    its pool by `connect`, and released by `release`.

    Raises, from every method but `close` and `release`:
        redis.exceptions.RedisError, OSError, StoreError: the connection is broken; try again
            after `close`.
    """

    __slots__ = (
        "_handshake",
        "_held",
        "_marking",
        "_numbers",
        "_source",
        "_stream",
        "owned",
        "receive",
        "receive_known",
        "send",
    )

    def __init__(
        self,
        source: Source,
        handshake: Handshake | None,
        *,
        marking: bool,
        numbers: NumberCache | None = None,
    ) -> None:
        """Begin without a connection.

        Arguments:
            source: makes the connection.
            handshake: the handshake to make before the first commands, unless it is done.
            marking: whether the connection is for marks.
            numbers: the numbers of users that this connection has fetched: it is cleared when
                the connection ends. Only if the tally made the client.
        """
        self._numbers = numbers
        self._source = source
        self._handshake = handshake
        self._marking = marking
        #: Whether the tally made the client, so that the connection is kept.
        self.owned = source.owned
        #: redis-py's connection.
        self._held: list[Any] = []
        self._stream: BlockingStream | None = None

    def prepare(self, deadline: float) -> None:
        """Connect if needed, make the handshake unless it is done.

        Arguments:
            deadline: when to give up, by `time.monotonic`.
        """
        stream = self._stream
        if stream is None:
            self.close()  # if a signal handler has interrupted an earlier attempt
            self.forget_numbers()
            self._source.connect_into(self._held, deadline)
            self._stream = stream = BlockingStream(self._held[0])
            #: Those of the stream.
            self.send, self.receive = stream.send, stream.receive
            self.receive_known = stream.receive_known
        elif not self._marking:
            # Marks need no check: a reply to other commands is no transaction's reply.
            stream.check_unused()
        if self._handshake is not None and not self._handshake.done:
            shake_hands(self._handshake, stream, marking=self._marking, deadline=deadline)
        stream.begin(deadline)

    def release(self) -> None:
        """Release the connection to the caller's pool; all its replies have to be read."""
        if not self.owned and self._held:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.restore_timeout()
            self._source.release_shared(self._held, intact=stream is not None)

    def forget_numbers(self) -> None:
        """Clear the numbers of users that this connection has fetched."""
        if self._numbers is not None:
            self._numbers.clear()

    def close(self) -> None:
        """Disconnect; `prepare` connects again."""
        self._stream = None
        self.forget_numbers()
        self._source.release_shared(self._held, intact=False)


def shake_hands(
    handshake: Handshake, stream: BlockingStream, *, marking: bool, deadline: float
) -> None:
    """Make the handshake.

    Arguments:
        handshake: the handshake.
        stream: the stream of a connection without unread replies.
        marking: whether a mark follows.
        deadline: when to give up, by `time.monotonic`.
    """
    stream.set_timeout(deadline)
    data, count = handshake.commands(marking=marking)
    stream.send(data)
    replies: list[Any] = []
    stream.receive(replies, count, deadline)
    handshake.check(replies)
