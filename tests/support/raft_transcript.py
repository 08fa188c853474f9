"""A transcript of a Raft group: who said what to whom, in words.

A file is a story in TOML, a line of dashes, and what was said:

    [group]
    servers = "abc"              # also: spare, latency, seed, disks, and any field of `Timing`
    disks = { e = "3 in term 3, voted e" }      # the terms of the entries after the first one
    [[at]]
    time = "2s"
    do = "kill"                  # a verb of `TinyRaft`, or of `_VERBS`
    who = "a"
    [transcript]
    from = "1s"
    until = "3s"
    say = ["votes", "entries", "answers", "disk", "snapshots", "notes"]     # also "heartbeats"

`DISLOCATE_REWRITE=1 pytest tests/transcripts` writes the second half anew; the difference is the review.
"""

import re
import tomllib
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.consensus.duties import Save, Snapshot, Timing
from dislocate.core.consensus.messages import (
    Append,
    Appended,
    Configuration,
    Entry,
    LeadNow,
    ServerId,
    SnapshotChunk,
    SnapshotReceived,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.units import MILLISECOND, parse_duration
from tests.support.raft_disk import disk_with, name_of, server_id, servers
from tests.support.tiny_raft import TinyRaft


def tell(text: str) -> str:
    """What the group in `text` says, one line a word."""
    story = tomllib.loads(text)
    table, excerpt = story["group"], story["transcript"]
    group = _group(table)
    until = parse_duration(excerpt["until"])
    for step in sorted(story.get("at", ()), key=lambda step: parse_duration(step["time"])):
        _run_to(group, parse_duration(step.pop("time")))
        group.log.append((group.now, "", 0, "", "story", _in_words(step)))
        _do(group, **step)
    _run_to(group, until)
    group.check_logs_match()
    group.check_nothing_is_lost()
    since, say = parse_duration(excerpt["from"]), tuple(excerpt["say"])
    only = servers(excerpt.get("by", "")) or tuple(server.id for server in group.servers.values())
    beats = {
        (a, b, term, what.round)
        for _, a, term, b, _, what in group.log
        if isinstance(what, Append) and not what.entries
    }
    lines = []
    for at, source, term, to, verb, what in group.log:
        if not since <= at < until or (source and server_id(source) not in only):
            continue
        is_beat = isinstance(what, Appended) and what.accepted and (to, source, term, what.round) in beats
        words = "" if is_beat and "heartbeats" not in say else _told(verb, what, say)
        if words:
            lines.append(
                f"{at / 1e9:8.4f}s  {_head(source, term, to, verb)}{words}{'  (lost)' if verb == 'loses' else ''}"
            )
    return "\n".join(lines) + "\n"


def _head(source: str, term: int, to: str, verb: str) -> str:
    if verb == "story":
        return "-- "
    return f"{source} to {to} in term {term}: " if to and verb != "is refused by" else f"{source} "


def _group(table: dict[str, Any]) -> TinyRaft:
    names = table.pop("servers")
    disks = {
        name: disk_with(names, terms, int(term), voted_for or "")
        for name, words in table.pop("disks", {}).items()
        for terms, term, voted_for in re.findall(r"([\d ]*) ?in term (\d+)(?:, voted (\w))?", words)
    }
    known = {name: table.pop(name) for name in ("spare", "latency", "seed") if name in table}
    return TinyRaft(names, disks=disks, timing=Timing(**table), **known)


def _run_to(group: TinyRaft, at: int) -> None:
    group.run(f"{at - group.now}ns")


# ---- what a story can do


def _links(group: TinyRaft, between: str, without: int = 0) -> None:
    """Only these pairs hear each other, e.g. 'ab ac', and entries of the term `without` are lost there too."""
    pairs = {frozenset(pair) for pair in between.split()}
    group.ignores = lambda source, to, message: (
        frozenset((source, to)) not in pairs
        or (isinstance(message, Append) and any(entry.term == without for entry in message.entries))
    )


def _disk(group: TinyRaft, who: str, works: bool) -> None:
    """Whether the disk gets on."""
    group.servers[who].disk.is_stuck = not works


def _slow(group: TinyRaft, who: str, takes: str) -> None:
    group.servers[who].disk.latency = max(MILLISECOND // 10, parse_duration(takes))


def _finish(group: TinyRaft, who: str) -> None:
    """The disk finishes the first thing that it is working on, and no more."""
    disk = group.servers[who].disk
    ticket, act = disk.queue.pop(0)
    act()
    group.log.append((group.now, who, 0, "", "has written", ticket))
    group.do(who, lambda raft: raft.stored(ticket, group.now))


def _propose(group: TinyRaft, text: str, who: str | None = None) -> None:
    group.propose(text, who)


def _change(group: TinyRaft, who: str, to: str) -> None:
    refusal = group.do(who, lambda raft: raft.change(servers(to), group.now))
    assert not refusal, refusal


def _transfer(group: TinyRaft, who: str, to: str) -> None:
    refusal = group.do(who, lambda raft: raft.transfer(server_id(to), group.now))
    assert not refusal, refusal


_VERBS: dict[str, Callable[..., None]] = {
    "links": _links,
    "disk": _disk,
    "slow": _slow,
    "finish": _finish,
    "propose": _propose,
    "change": _change,
    "transfer": _transfer,
    "campaign": lambda group, who: group.campaign(who),
    "compact": lambda group, who: group.compact(who),
    "isolate": lambda group, who: group.isolate(who),
    "heal": lambda group: group.heal(),
    "kill": lambda group, who, verified=True: group.kill(who, verified=verified),
    "start": lambda group, who: group.start(who),
    "lose_link": lambda group, one, other: group.lose_link(one, other),
}


def _do(group: TinyRaft, do: str, **arguments: Any) -> None:
    _VERBS[do](group, **arguments)


def _in_words(step: dict[str, Any]) -> str:
    return " ".join(str(word) for word in (step["do"], *(v for k, v in step.items() if k != "do")))


# ---- words


def _told(verb: str, what: Any, say: tuple[str, ...]) -> str:
    """The words, or '' when nobody wants to hear them."""
    kind = "notes" if verb in ("starts", "is killed", "is refused by") else "disk"
    match what:
        case str():
            return what
        case None:
            words = "was refused by the leader's host" if verb == "is refused by" else verb
        case int():
            words = f"has written {what}"
        case Save():
            words = f"writes {what.ticket}: {_save(what)}"
        case VoteAsked() | VoteGiven() | LeadNow():
            kind, words = "votes", _vote(what)
        case Append():
            kind, words = "entries" if what.entries else "heartbeats", _append(what)
        case Appended():
            kind, words = "answers", _appended(what)
        case SnapshotChunk() | SnapshotReceived() | Snapshot():
            kind, words = "snapshots", _snapshot(what)
        case _:
            kind, words = "notes", _event(what)
    return words if kind in say else ""


def _vote(what: VoteAsked | VoteGiven | LeadNow) -> str:
    match what:
        case VoteAsked():
            asks = "would you vote for me?" if what.pre else "vote for me!"
            return f"{asks} My log ends at {_place(what.last_index, what.last_term)}" + (
                ", and our leader wants it" if what.transferred else ""
            )
        case VoteGiven():
            return {(True, True): "I would", (True, False): "you have my vote"}.get((what.granted, what.pre), "no")
    return "lead now"


def _append(append: Append) -> str:
    after = f"after {_place(append.prev_index, append.prev_term)}"
    entries = ", ".join(_entry(entry) for entry in append.entries) or "nothing new"
    return f"{after}: {entries}; {append.commit} is committed"


def _appended(answer: Appended) -> str:
    if answer.accepted:
        return f"I have {answer.index}"
    return f"no; look at {_place(answer.index, answer.term_there)}"


def _snapshot(what: SnapshotChunk | SnapshotReceived | Snapshot) -> str:
    match what:
        case SnapshotChunk():
            return f"state as of {_place(what.index, what.entry_term)}, part {what.chunk + 1} of {what.chunks}"
        case SnapshotReceived():
            return f"of the state as of {what.index} I have {what.next_chunk}"
    return f"installs the state as of {_place(what.index, what.term)}"


def _save(save: Save) -> str:
    parts = []
    if save.hard is not None:
        voted = f", voted for {name_of(save.hard.voted_for)}" if save.hard.voted_for else ""
        parts.append(f"term {save.hard.term}{voted}")
    if save.drop_from:
        parts.append(f"not {save.drop_from} to {save.drop_to} any more")
    parts += [_entry(entry) for entry in save.entries]
    return ", ".join(parts)


def _event(event: Any) -> str:
    match event:
        case LeaderElected():
            return f"leads term {event.term}"
        case LeaderDeposed():
            return f"leads term {event.term} no more: {event.reason}"
        case ServersChanged():
            learners = f", learners {_short(event.learners)}" if event.learners else ""
            return f"commits {event.index}: voters {_short(event.voters)}{learners}"
    return str(event)


def _place(index: int, term: int) -> str:
    return f"{index}/{term}"


def _entry(entry: Entry) -> str:
    what = _configuration(entry.configuration) if entry.configuration else repr(entry.data.decode())
    return f"{_place(entry.index, entry.term)} {what}"


def _configuration(configuration: Configuration) -> str:
    words = f"voters {_names(configuration.voters)}"
    if configuration.outgoing:
        words += f" and {_names(configuration.outgoing)}"
    return words + (f", learners {_names(configuration.learners)}" if configuration.learners else "")


def _names(ids: tuple[ServerId, ...]) -> str:
    return "".join(name_of(one) for one in ids)


def _short(texts: tuple[str, ...]) -> str:
    return _names(tuple(ServerId(text.partition("@")[0], int(text.partition("@")[2], 16)) for text in texts))
