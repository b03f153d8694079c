"""Objects that belong to one event loop, from their first use until they are closed."""

from __future__ import annotations

import asyncio

import anyio

from ..errors import ClosedError, WrongEventLoopError

__all__ = ["ClosedWhenIdle", "OfOneLoop", "no_loop", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        WrongEventLoopError: there is none of asyncio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise no_loop() from None


def no_loop() -> WrongEventLoopError:
    """Return the error for a call without an event loop, or on a loop that is not asyncio's."""
    return WrongEventLoopError(
        "tallymark runs on asyncio, and no event loop of asyncio is running here. Under trio, or "
        "without a loop, there is tallymark.SyncTally"
    )


class OfOneLoop:
    """An object that may be used on one event loop only: the loop of its first use."""

    def __init__(self) -> None:
        #: The loop; ``None`` before the first use, and after `end_use`.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The loop, after `end_use`.
        self._closing_on: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def check_usable(self) -> None:
        """Raise unless the object can be used on the running loop.

        Raises:
            ClosedError: it is closed.
            WrongEventLoopError: it belongs to another loop, or no loop of asyncio is running.
        """
        self._bind(running_loop())

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind the object to a loop at its first use; else raise as `check_usable`."""
        if self._closed:
            raise ClosedError("this tally is closed")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongEventLoopError(
                "this Tally has connections of another event loop; make one for each loop, "
                "or use the module-level functions, which do"
            )

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop to which the object belongs; ``None`` before the first use and after the end."""
        return self._loop or self._closing_on

    def outlived_its_loop(self) -> bool:
        """Return whether the loop has been closed, so that nothing can be awaited on it.

        Raises:
            WrongEventLoopError: the loop is not the running one, and is open; or no loop of
                asyncio is running.
        """
        loop = self.loop
        if loop is not None and loop.is_closed():
            return True
        running = running_loop()
        if loop is None or loop is running:
            return False
        raise WrongEventLoopError(
            "this Tally has connections of another event loop; close it there, where it goes on "
            "working until then"
        )

    def end_use(self) -> None:
        """Refuse all further calls, since the object is being closed."""
        self._closed = True
        self._closing_on, self._loop = self._loop or self._closing_on, None


class ClosedWhenIdle(OfOneLoop):
    """Base class: ``close`` waits until no call is in progress."""

    def __init__(self) -> None:
        super().__init__()
        self._became_idle: anyio.Event | None = None

    def _is_idle(self) -> bool:
        """Return whether no call is in progress."""
        raise NotImplementedError

    def _notify_idle(self) -> None:
        """Wake `_until_idle` if no call is in progress; called whenever a call ends."""
        if self._became_idle is not None and self._is_idle():
            self._became_idle.set()
            self._became_idle = None

    async def _until_idle(self) -> None:
        """Wait until no call is in progress."""
        while not self._is_idle():
            self._became_idle = self._became_idle or anyio.Event()
            await self._became_idle.wait()
