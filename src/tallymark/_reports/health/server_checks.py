"""Checks of servers: their release, their configuration, their state. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .checks import Check, Verdict, each_server, in_bytes, ok, plural
from .servers import Unknown

if TYPE_CHECKING:
    from .checks import Subject
    from .servers import ServerFacts

__all__ = ["SERVER_CHECKS"]

#: The first tested release, by the name of the server, and the patch numbers of pre-releases.
_TESTED: Final = {"redis": (6, 2), "valkey": (7, 2)}
_PRE_RELEASE: Final = 200

#: The names of other servers, by the field of ``INFO`` that only they have.
_OTHERS: Final = {"dragonfly_version": "Dragonfly", "garnet_version": "Garnet"}

#: From which share of a limit on there is a warning, or a problem.
_MUCH, _TOO_MUCH = 0.8, 0.95

#: Memory that is not worth a word, in bytes.
_LITTLE: Final = 100 * 1024**2

#: Ratios of the memory that the server has taken to the memory in use.
_FRAGMENTED, _SWAPPED = 1.5, 0.9

#: How many seconds a clock may be wrong, and a round trip may take, before it is a warning or a
#: problem.
_CLOCK, _WRONG_CLOCK = 1.0, 60.0
_SLOW_TRIP: Final = 0.02

#: After how many seconds a replica lags.
_LAG: Final = 10

#: The smallest limit of a client's output that fits the parts of bitmaps that are fetched.
_OUTPUT: Final = 64 * 1024**2

#: The shortest time after which Redis answers others with ``BUSY``, in milliseconds.
_BUSY: Final = 500

_DOCS: Final = "docs/how-to/connect.md"


def _version(subject: Subject, server: ServerFacts) -> Verdict:
    info = server.info
    if server.hello.get("server") == "fakeredis":
        return Verdict(
            "warning",
            f"fakeredis {server.hello.get('version', '')}: a store inside of a process",
            "use it for tests; its data ends with the process",
        )
    other = next((name for field, name in _OTHERS.items() if field in info), None)
    if "keydb" in info.get("executable", "") or "mvcc_depth" in info:
        other = "KeyDB"
    name = info.get("server_name", server.hello.get("server", "redis")).lower()
    text = (
        info.get(f"{name}_version") or server.hello.get("version") or server.value("redis_version")
    )
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if other is not None or name not in _TESTED or match is None:
        return Verdict(
            "warning",
            f"{other or name} {text}, with which tallymark is not tested",
            "run the tests of your program against it, or use Redis or Valkey",
        )
    major, minor, patch = (int(part or 0) for part in match.groups())
    title = f"{name.capitalize()} {text}"
    if (major, minor) < _TESTED[name]:
        oldest = ".".join(map(str, _TESTED[name]))
        return Verdict(
            "problem",
            f"{title}, which is older than all releases with which tallymark is tested",
            f"update it to {oldest} or later",
        )
    if patch >= _PRE_RELEASE:
        return Verdict("warning", f"{title}, a pre-release", "use a release for data to keep")
    return ok(title)


def _persistence(subject: Subject, server: ServerFacts) -> Verdict:
    append_only = server.value("aof_enabled") == "1"
    for field, what in (
        ("rdb_last_bgsave_status", "the last snapshot (BGSAVE)"),
        ("aof_last_write_status", "the last write to the append-only file"),
        ("aof_last_bgrewrite_status", "the last rewrite of the append-only file"),
    ):
        if server.info.get(field, "ok") != "ok":
            return Verdict(
                "problem",
                f"{what} has failed",
                "look for a full disk or too little memory in the server's log",
            )
    if append_only:
        return ok("the append-only file is on")
    try:
        snapshots = server.directive("save").strip()
    except Unknown as reason:
        raise Unknown(f"the append-only file is off; snapshots are not known: {reason}") from None
    if snapshots:
        return Verdict(
            "warning",
            f"snapshots only (save {snapshots}): a crash loses the marks since the last one",
            "CONFIG SET appendonly yes, and the same in redis.conf",
        )
    return Verdict(
        "problem",
        "neither snapshots nor the append-only file are on: a restart loses all marks",
        "CONFIG SET appendonly yes, and the same in redis.conf",
    )


def _eviction(subject: Subject, server: ServerFacts) -> Verdict:
    policy = server.info.get("maxmemory_policy") or server.directive("maxmemory-policy")
    evicted = int(server.number("evicted_keys"))
    lost = f"; {evicted} keys were evicted since the start" if evicted else ""
    advice = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
    seen = f"maxmemory-policy {policy}{lost}"
    if policy.startswith("allkeys-"):
        return Verdict("problem", f"{seen}: any bitmap may be deleted when Redis is full", advice)
    if policy.startswith("volatile-") and (subject.options.lifetimes or evicted):
        return Verdict(
            "warning",
            f"{seen}: bitmaps with an expiry are deleted early when Redis is full",
            advice,
        )
    if evicted:
        return Verdict("warning", seen, "find out which keys these were: they may be bitmaps")
    return ok(seen)


def _memory(subject: Subject, server: ServerFacts) -> Verdict:
    used, limit = server.number("used_memory"), server.number("maxmemory")
    advice = "give it more memory; delete what is old: delete_before, or the option expire"
    if limit:
        share = used / limit
        seen = f"{in_bytes(used)} of maxmemory {in_bytes(limit)} ({share:.0%})"
    else:
        total = server.number("total_system_memory")
        share = used / total if total else 0.0
        seen = f"{in_bytes(used)} of the machine's {in_bytes(total)} ({share:.0%}); no maxmemory"
    if share >= _TOO_MUCH:
        return Verdict("problem", seen, advice)
    return Verdict("warning", seen, advice) if share >= _MUCH else ok(seen)


def _fragmentation(subject: Subject, server: ServerFacts) -> Verdict:
    used, resident = server.number("used_memory"), server.number("used_memory_rss")
    ratio = resident / used if used else 1.0
    seen = f"{in_bytes(resident)} taken from the system for {in_bytes(used)} in use ({ratio:.2f})"
    if resident - used > _LITTLE and ratio > _FRAGMENTED:
        return Verdict(
            "warning", seen, "CONFIG SET activedefrag yes, or restart it when that is possible"
        )
    if used > _LITTLE and ratio < _SWAPPED:
        return Verdict("warning", f"{seen}: a part is swapped out", "give the machine more memory")
    return ok(seen)


def _replication(subject: Subject, server: ServerFacts) -> Verdict:
    role = server.value("role")
    if role == "slave":
        return Verdict(
            "problem",
            "this is a read-only replica: marks fail",
            "connect to the primary; with Sentinel, by a redis+sentinel:// URL",
        )
    replicas = [
        _pairs(value) for name, value in server.info.items() if re.fullmatch(r"slave\d+", name)
    ]
    late = [
        f"{replica.get('ip')}:{replica.get('port')} ({replica.get('state')}, "
        f"{replica.get('lag')} s behind)"
        for replica in replicas
        if replica.get("state") != "online" or int(replica.get("lag") or 0) > _LAG
    ]
    good = len(replicas) - len(late)
    wanted = subject.options.replicas
    least = int(server.config.get("min-replicas-to-write") or 0)
    seen = plural(len(replicas), "replica") + (f", of which {', '.join(late)}" if late else "")
    if good < wanted:
        return Verdict(
            "problem",
            f"{seen}; the tally waits for {wanted} (option replicas): marks fail",
            "add replicas, or lower the option",
        )
    if good < least:
        return Verdict(
            "problem",
            f"{seen}; min-replicas-to-write is {least}: Redis refuses marks",
            "bring the replicas back, or lower it",
        )
    if late:
        return Verdict("warning", seen, "look at the network and the log of the replica")
    return ok(seen)


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of a text such as ``ip=10.0.0.2,port=6379``."""
    parts = [part.partition("=") for part in text.split(",")]
    return {name: value for name, _, value in parts}


def _read_replica(subject: Subject) -> Verdict:
    replica = subject.replica
    if isinstance(replica, Unknown):
        raise replica
    if replica is None:
        raise Unknown("the tally reads from the servers that it marks on (option read_from)")
    if replica.value("role") != "slave":
        return Verdict("warning", "reads go to a server that is a primary", "check read_from")
    link = replica.value("master_link_status")
    if link != "up":
        return Verdict(
            "problem",
            f"its link to the primary is {link}: answers get older and older",
            "look at the network and the log of the replica",
        )
    behind = 0
    if not isinstance(subject.servers, Unknown) and len(subject.servers) == 1:
        ahead = subject.servers[0].info.get("master_repl_offset")
        behind = max(0, int(ahead or 0) - int(replica.number("slave_repl_offset")))
    silent = int(replica.number("master_last_io_seconds_ago"))
    seen = f"the link is up; {in_bytes(behind)} behind; heard of the primary {silent} s ago"
    if silent > _LAG + 10:  # the primary sends something every 10 seconds
        return Verdict("warning", seen, "look at the network and the log of the replica")
    return ok(seen)


def _cluster(subject: Subject, server: ServerFacts) -> Verdict:
    if not server.node:
        raise Unknown("this is no cluster")
    state = server.of_cluster("cluster_state")
    covered, slots = int(server.of_cluster("cluster_slots_ok")), 16384
    if state != "ok" or covered < slots:
        return Verdict(
            "problem",
            f"cluster_state {state}, {covered} of {slots} slots are served",
            "redis-cli --cluster check; bring back the nodes that have failed",
        )
    moving = len(re.findall(r"\[\d+-[<>]-", server.nodes))
    if moving:
        return Verdict(
            "warning",
            f"{plural(moving, 'slot')} {'is' if moving == 1 else 'are'} moving: calls wait there, "
            "and deletions begin anew",
            "let it end, or redis-cli --cluster fix",
        )
    replicas = re.findall(r"(?m)^\S+ \S+ \S*slave\S* (\S+)", server.nodes)
    own = re.search(r"(?m)^(\S+) \S+ myself", server.nodes)
    if own is not None and own[1] not in replicas:
        return Verdict(
            "warning", "a master without a replica: its shards fail with it", "add a replica"
        )
    return ok(f"cluster_state ok, {covered} slots are served")


def _clients(subject: Subject, server: ServerFacts) -> Verdict:
    connected = int(server.number("connected_clients"))
    limit = int(float(server.info.get("maxclients") or server.setting("maxclients")))
    seen = f"{connected} of at most {limit} clients"
    advice = "share tallies; lower max_connections; raise maxclients"
    if connected >= _MUCH * limit:
        return Verdict("warning", seen, advice)
    rejected = int(float(server.info.get("rejected_connections", 0)))
    if rejected:
        return Verdict("warning", f"{seen}; {rejected} were rejected since the start", advice)
    return ok(seen)


def _clock(subject: Subject, server: ServerFacts) -> Verdict:
    server.check("TIME")
    if server.ahead is None:
        raise Unknown("the server did not tell its time")
    # By half of the round trip, the difference is not known.
    error = max(0.0, abs(server.ahead) - min(server.round_trips) / 2)
    seen = f"its clock is {abs(server.ahead):.3f} s {'ahead' if server.ahead > 0 else 'behind'}"
    advice = "run NTP on both machines"
    if error >= _WRONG_CLOCK:
        return Verdict("problem", seen, advice)
    return Verdict("warning", seen, advice) if error >= _CLOCK else ok(seen)


def _latency(subject: Subject, server: ServerFacts) -> Verdict:
    if not server.round_trips:
        raise Unknown("no round trip was measured")
    trips = sorted(server.round_trips)
    median = trips[len(trips) // 2]
    seen = f"a round trip takes {median * 1000:.2g} ms (median of {len(trips)})"
    if median >= _SLOW_TRIP:
        return Verdict(
            "warning",
            seen,
            "run the program near the server; look for slow commands, and for a busy CPU",
        )
    return ok(seen)


def _slow_log(subject: Subject, server: ServerFacts) -> Verdict:
    server.check("SLOWLOG GET")
    prefix = subject.schema.prefix.encode()
    own = [
        (duration, arguments[0].decode(errors="replace"))
        for duration, arguments in server.slow
        if any(argument.startswith(prefix) for argument in arguments)
    ]
    if own:
        longest, name = max(own)
        return Verdict(
            "warning",
            f"{len(own)} of {len(server.slow)} entries are commands on this tally's keys; the "
            f"longest is {name[:40]} with {longest / 1000:.3g} ms",
            "lower max_temp_bytes or max_bitmaps, set max_user_id; see Large expressions in "
            f"{_DOCS}",
        )
    return ok(f"{len(server.slow)} entries, none of them on this tally's keys")


def _limits(subject: Subject, server: ServerFacts) -> Verdict:
    normal = re.search(r"normal (\d+) (\d+)", server.directive("client-output-buffer-limit"))
    hard = int(normal[1]) if normal else 0
    if 0 < hard < _OUTPUT:
        return Verdict(
            "warning",
            f"clients with {in_bytes(hard)} of output are cut off (client-output-buffer-limit)",
            f"allow {in_bytes(_OUTPUT)}: a report fetches many parts of bitmaps at once",
        )
    longest = int(server.config.get("proto-max-bulk-len") or 2**29)
    highest = subject.schema.parts[0].max_user_id
    if highest // 8 >= longest and subject.schema.user_ids is None:
        return Verdict(
            "warning",
            f"strings have at most {in_bytes(longest)} (proto-max-bulk-len): marks of users "
            f"from {8 * longest * len(subject.schema.parts)} on fail",
            "set max_user_id below that, or raise it",
        )
    return ok("output of clients and length of strings are not limited too much")


def _scripts(subject: Subject, server: ServerFacts) -> Verdict:
    limit = int(server.setting("lua-time-limit"))
    seen = f"others get BUSY after {limit} ms of a script (lua-time-limit)"
    if 0 < limit < _BUSY:
        return Verdict("warning", seen, "use the default of 5000: marks are retried then")
    return ok(seen)


SERVER_CHECKS: Final = (
    Check(
        "version",
        "tallymark relies on commands and guarantees of Redis, and is tested with some releases",
        each_server(_version),
    ),
    Check(
        "persistence",
        "bitmaps are data that cannot be rebuilt",
        each_server(_persistence),
    ),
    Check(
        "eviction",
        "an evicted bitmap reads as an empty one: counts are too small, without an error",
        each_server(_eviction),
    ),
    Check("memory", "a full Redis refuses marks, or evicts keys", each_server(_memory)),
    Check(
        "fragmentation",
        "memory that the server has and does not use is missing elsewhere",
        each_server(_fragmentation),
    ),
    Check(
        "replication",
        "a replica takes over if the primary fails; what it does not have is lost then",
        each_server(_replication),
    ),
    Check(
        "read replica",
        "with the option read_from, answers are as old as the replica's data",
        _read_replica,
    ),
    Check(
        "cluster",
        "marks of users in shards without a node fail",
        each_server(_cluster),
    ),
    Check(
        "clients",
        "a server with maxclients connections refuses all others",
        each_server(_clients),
    ),
    Check(
        "clock",
        "the program's clock decides the day of a mark, the server's when a bitmap expires",
        each_server(_clock),
    ),
    Check("latency", "each mark waits for a round trip", each_server(_latency)),
    Check(
        "slow log",
        "Redis does one thing at a time: a slow command delays all marks",
        each_server(_slow_log),
    ),
    Check(
        "limits",
        "some limits of a server make large reads, or marks of high ids, fail",
        each_server(_limits),
    ),
    Check(
        "scripts",
        "mark_many, save and forget run scripts of some milliseconds",
        each_server(_scripts),
    ),
)
