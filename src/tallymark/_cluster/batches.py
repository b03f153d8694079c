"""What makes a tally's marks and batches: by its user ids, for a server or a cluster. Pure.

What only ids of other types need is imported with the first tally that has them: it takes two
milliseconds, a twentieth of `import tallymark`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol, Union

from .._marking.batch import Batch
from .._marking.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.options import Options
    from .._marking.id_batch import IdBatch
    from .._marking.number_cache import NumberCache
    from .._marking.policies import Lock
    from .shard_transactions import ShardBatches

__all__ = ["AnyBatch", "NewShardBatch", "batches", "make_marker", "shard_batches"]

#: An `IdBatch` is a `Batch`.
AnyBatch = Union[Batch, "ShardBatches"]


class NewShardBatch(Protocol):
    """Makes an empty batch for a node of a cluster."""

    def __call__(self, *, asking: bool = False) -> AnyBatch:
        """Return a batch; ``asking`` as for `ShardBatches`."""
        ...


def make_marker(
    options: Options,
    clock: Callable[[], float],
    lock: Lock | None = None,
    cache: NumberCache | None = None,
) -> Marker:
    """Return what turns the arguments of a tally's write verbs into marks.

    Arguments:
        options, clock, lock: as for `Marker`.
        cache: the numbers of users that the connection for marks has fetched, if it caches some.
    """
    dictionary = options.schema().dictionary
    if dictionary is None:
        return Marker(options, clock, lock)
    from .._marking.id_marker import IdMarker  # noqa: PLC0415

    return IdMarker(options, clock, lock, dictionary=dictionary, cache=cache)


def batches(options: Options, cache: NumberCache | None = None) -> Callable[[], AnyBatch]:
    """Return a function that makes an empty batch for one server.

    Arguments:
        options: the tally's.
        cache: the numbers of users that the connection has fetched, if it caches some.
    """
    if options.user_ids is None:
        return functools.partial(Batch, bitfield=options.bitfield, replicas=options.replicas)
    from .._marking.id_batch import IdBatch  # noqa: PLC0415
    from .._marking.id_script import IdScript  # noqa: PLC0415

    script = IdScript(options.schema())
    return functools.partial(IdBatch, script, replicas=options.replicas, cache=cache)


def shard_batches(options: Options) -> NewShardBatch:
    """Return a function that makes an empty batch for a node of a cluster."""
    if options.user_ids is None:
        from .shard_transactions import ShardBatches  # noqa: PLC0415 - for clusters only

        return functools.partial(ShardBatches, bitfield=options.bitfield, replicas=options.replicas)
    from .._marking.id_batch import IdBatch  # noqa: PLC0415
    from .._marking.id_script import IdScript  # noqa: PLC0415

    script = IdScript(options.schema(), on_cluster=True)

    def new_batch(*, asking: bool = False) -> IdBatch:
        # Never with ASKING: a node that imports a slot does not know which ids the other has.
        return IdBatch(script, replicas=options.replicas)

    return new_batch
