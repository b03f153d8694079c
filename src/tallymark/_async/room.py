"""Room for a bounded number of waiting marks; callers beyond it wait for their turn."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Room"]


class Room:
    """Lets callers in as long as there is room, strictly in the order in which they came.

    Belongs to one event loop.
    """

    __slots__ = ("_entering", "_free", "_outside", "_size", "_turns")

    def __init__(self, size: int) -> None:
        """Begin empty.

        Arguments:
            size: how many places there are. A caller that wants several is let
                in if one is free, so that no caller is too large ever to enter.
        """
        self._size = self._free = size
        self._turns: deque[tuple[asyncio.Future[None], int]] = deque()
        #: Places of callers that were let in and have not yet come.
        self._entering = 0
        #: Places of callers that wait for their turn.
        self._outside = 0

    @property
    def crowded(self) -> bool:
        """Whether a caller that comes now has to `wait`."""
        return self._free <= 0 or bool(self._entering) or bool(self._turns)

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._size - self._free

    @property
    def outside(self) -> int:
        """How many places the callers want who are not in yet."""
        return self._entering + self._outside

    def enter(self, places: int) -> None:
        """Take places, if it is not crowded."""
        self._free -= places

    def leave(self, places: int) -> None:
        """Give places back."""
        self._free += places
        self._let_in()

    async def wait(self, places: int) -> None:
        """Wait for one's turn.

        The places are reserved then, and no newcomer is let in, who might pass:
        a caller has to call `entered` and, if it still wants them, `enter`,
        without awaiting anything before.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((turn, places))
        self._outside += places
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # cancelled in the moment of its turn
                self.entered(places)
            else:
                turn.cancel()
                self._outside -= places
                # Those whose time is up go in the order in which they came: while
                # nothing moves for long, they would be all that is left here.
                while self._turns and self._turns[0][0].done():
                    self._turns.popleft()
            raise

    def entered(self, places: int) -> None:
        """Tell that a caller whose turn had come is here: it enters now, or never."""
        self._entering -= places
        self._free += places
        self._let_in()

    def _let_in(self) -> None:
        while self._turns and self._free > 0:
            turn, places = self._turns.popleft()
            if not turn.done():
                self._free -= places
                self._outside -= places
                self._entering += places
                turn.set_result(None)
