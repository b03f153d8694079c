"""How many replicas have a mark before it counts as done. Pure.

``WAIT`` makes the server answer only when so many replicas have taken in what was
written before, or after a while (https://redis.io/docs/latest/commands/wait/).
"""

from __future__ import annotations

from typing import Any, Final

from .._core import resp as wire
from .._core.failures import unexpected_reply
from ..errors import CommandError, StoreUnavailableError

__all__ = ["check_replicated", "wait_for"]

#: How long the server waits at most. Marks on the same connection wait behind it.
_MILLISECONDS: Final = 1000


def wait_for(replicas: int) -> bytes:
    """Return the command that waits for so many replicas, nothing for none."""
    return wire.command(b"WAIT", b"%d" % replicas, b"%d" % _MILLISECONDS) if replicas else b""


def check_replicated(reply: Any, replicas: int) -> None:
    """Raise unless so many replicas have it.

    Raises:
        StoreUnavailableError: fewer have; another attempt may reach more.
    """
    if isinstance(reply, CommandError):  # such as UNBLOCKED: it is no master any more
        raise StoreUnavailableError(str(reply)) from reply.__cause__
    if not isinstance(reply, int):
        raise unexpected_reply(reply)
    if reply < replicas:
        raise StoreUnavailableError(
            f"{reply} of the {replicas} replicas that this tally wants have confirmed the marks"
        )
