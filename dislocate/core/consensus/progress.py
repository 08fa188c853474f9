"""Progress: what a leader knows of one follower, and how much it may send.

    PROBE       where the logs agree is not known: one append at a time
    REPLICATE   it is: appends follow each other without waiting, within the limits on messages and bytes under way
    SNAPSHOT    what the follower needs is compacted: the applied state goes there first

Invariant: `match` only grows, and the follower has everything up to `match`, durably, in this leader's term, unless its disk
was put back to an older copy of itself.  Then nothing it ever said holds any more, and its leader must notice, see `forgets`.

Source: etcd's raft/tracker.  Does not know messages' contents; decides nothing about commits.
"""

from collections import deque
from enum import Enum

from dislocate.core.consensus.duties import Snapshot, Timing
from dislocate.core.consensus.messages import Appended
from dislocate.core.consensus.quorum import UNBOUNDED


class Pace(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


SMOOTHING = 8  # a new sample counts for an eighth, as in TCP
PINGS_KEPT = 64  # heartbeats without an answer whose time of sending is remembered
RTTS_KEPT = 8  # the least of so many counts: who stood still answers a whole queue late, and is not far away for that


def smoothed(before: int, sample: int) -> int:
    """An average that leans to the past; the first sample is taken as it is."""
    return sample if before == 0 else before + (sample - before) // SMOOTHING


class Sending:
    """A snapshot on its way to one follower."""

    __slots__ = ("_largest", "_sizes", "acked", "moved_at", "sent", "snapshot")

    def __init__(self, snapshot: Snapshot, now: int) -> None:
        self.snapshot = snapshot
        self.acked = 0  # chunks before this one are there
        self.sent = 0  # chunks before this one are under way or there
        self._sizes: dict[int, int] = {}  # bytes of each chunk that was sent
        self._largest = 0
        self.moved_at = now  # when it last got on

    def next_chunk(self, window: int) -> tuple[int, bytes] | None:
        """The chunk to send now; None: enough is under way, or all is.  How large one is shows when it is made, so the next
        one counts as much as the largest before it."""
        number = self.sent
        under_way = sum(self._sizes[at] for at in range(self.acked, number))
        if number >= len(self.snapshot.chunks) or (under_way and under_way + self._largest > window):
            return None
        data = self.snapshot.chunks[number]
        self._sizes[number] = len(data)
        self._largest = max(self._largest, len(data))
        self.sent += 1
        return number, data

    def rewind(self, to: int, now: int) -> None:
        """Send again from chunk `to`: what was under way is lost."""
        self.acked = self.sent = to
        self.moved_at = now


class Progress:
    """One follower or learner, as its leader sees it."""

    __slots__ = (
        "_acks",
        "_pings",
        "_rtts",
        "append_latency",
        "better_since",
        "confirmed_at",
        "forgot",
        "heard_at",
        "ignore_until",
        "inflight_bytes",
        "leaving",
        "leaving_until",
        "lost",
        "match",
        "matched_round",
        "next",
        "pace",
        "probed_round",
        "probed_to",
        "probing",
        "quorum_rtt",
        "round",
        "rtt",
        "sending",
        "sent_round",
        "told_commit",
        "wanted_at",
    )

    def __init__(self, next_index: int, now: int) -> None:
        self.pace = Pace.PROBE
        self.match = 0
        self.matched_round = 0  # the last message sent to it before `match` was known
        self.forgot = 0  # what it had acknowledged and has not any more: it is told so, and gets nothing; 0: it has all
        self.next = next_index  # the first entry that it has not been sent
        self.probing = False  # a probe is under way
        self.probed_to = 0  # the last entry that it carried
        self.probed_round = 0  # and its round
        self.lost = False  # there is no link
        self.heard_at = now  # when it last answered this leader
        self.confirmed_at = 0  # when what it answered last was said: it followed this leader at some time after that
        self.round = 0  # the highest round that it answered
        self.sent_round = 0  # of the last message to it
        self.ignore_until = 0  # refusals of rounds up to this one are known already
        self.rtt = 0  # the least of the last few, nanoseconds; 0: not measured
        self.append_latency = 0  # smoothed time until entries are acknowledged: RTT and its disk
        self.quorum_rtt = 0  # what it says it would need for a majority
        self.better_since = 0  # since when it has been clearly better placed than the leader; 0: it is not
        self.told_commit = 0
        self.leaving = 0  # index of the configuration that left it out; 0: it belongs to the group
        self.leaving_until = 0
        self.sending: Sending | None = None
        self.wanted_at = 0  # when a snapshot for it was asked for; 0: not
        self.inflight_bytes = 0
        self._acks: deque[tuple[int, int, int]] = deque()  # (last index, bytes, sent at) of appends under way
        self._pings: deque[tuple[int, int]] = deque(maxlen=PINGS_KEPT)  # (round, sent at) of heartbeats
        self._rtts: deque[int] = deque(maxlen=RTTS_KEPT)

    # ---- sending

    def is_full(self, timing: Timing) -> bool:
        """Whether as much is under way as may be."""
        return len(self._acks) >= timing.inflight_messages or self.inflight_bytes >= timing.inflight_bytes

    def sent(self, last: int, size: int, now: int) -> None:
        """Entries up to `last` were sent."""
        self.next = last + 1
        self._acks.append((last, size, now))
        self.inflight_bytes += size

    def probed(self, last: int, round_: int) -> None:
        """A probe with entries up to `last` was sent."""
        self.probing = True
        self.probed_to, self.probed_round = last, round_

    def pinged(self, round_: int, now: int) -> None:
        """A heartbeat left; it is answered without waiting for the disk, so it measures the way."""
        self._pings.append((round_, now))

    # ---- hearing

    def answered(self, round_: int, now: int) -> bool:
        """It answered the message of `round_`; whether that measured the way."""
        self.heard_at = now
        self.lost = False
        self.round = max(self.round, round_)
        pings = self._pings
        while pings and pings[0][0] <= round_:
            pinged, sent_at = pings.popleft()
            self.confirmed_at = sent_at
            if pinged == round_:
                self._rtts.append(max(1, now - sent_at))
                self.rtt = min(self._rtts)
                return True
        return False

    def acknowledge(self, index: int, now: int) -> bool:
        """It has everything up to `index`; whether that is news."""
        while self._acks and self._acks[0][0] <= index:
            _, size, sent_at = self._acks.popleft()
            self.inflight_bytes -= size
            if not self._acks or self._acks[0][0] > index:
                self.append_latency = smoothed(self.append_latency, max(1, now - sent_at))
        is_news = index > self.match
        if is_news:
            self.match, self.matched_round = index, self.sent_round
            self.next = max(self.next, index + 1)
        return is_news

    def forgets(self, answer: Appended) -> bool:
        """Whether `answer` proves that its disk lost what it had acknowledged.

        It had everything up to `match` durably before it acknowledged that; this leader heard of it before it sent a round
        after `matched_round`; so it had that when it looked for an answer to such a round, whatever came late or in another
        order, and however often it was started in between.  In one term a follower replaces what it has by this leader's
        entries only, which are the same up to `match`: its log agrees at least up to there.  Where it says that it agrees no
        further than before `match`, its disk is not the one that acknowledged it.  A term that is over is not answered, a
        disk that was wiped is another server, and who installs a snapshot has not looked."""
        is_late = answer.round <= self.matched_round
        return answer.has_looked and not answer.accepted and not is_late and answer.index < self.match

    @property
    def needs_after(self) -> int:
        """The index after which it will need entries; `UNBOUNDED` when none that are there now, as far as is known."""
        if self.sending is not None:
            return self.sending.snapshot.index
        is_behind = self.match > 0 and not self.lost and self.pace is not Pace.SNAPSHOT
        return self.match if is_behind else UNBOUNDED

    @property
    def waiting_since(self) -> int | None:
        """When what it has not acknowledged yet was sent; None: nothing is under way that is counted."""
        return self._acks[0][2] if self._acks else None

    # ---- changing pace

    def probe_from(self, next_index: int, round_: int) -> None:
        """Look where the logs agree, beginning before `next_index`; what was sent up to `round_` is void."""
        self.pace = Pace.PROBE
        self.next = max(self.match + 1, next_index)
        self.probing = False
        self.ignore_until = round_
        self.sending = None
        self.wanted_at = 0
        self._forget_inflight()

    def is_found(self, round_: int) -> bool:
        """Whether an accepted message of `round_` ends the probing.  While a probe carries entries, only it or a later one
        does: what it carried need not be sent again, though its own answer may still wait for the disk."""
        if self.pace is not Pace.PROBE or round_ <= self.ignore_until:
            return False
        return not self.probing or round_ >= self.probed_round

    def replicate(self) -> None:
        """Everything after what it has, or was sent last, may be streamed."""
        self.pace = Pace.REPLICATE
        self.next = 1 + (max(self.match, self.probed_to) if self.probing else self.match)
        self.probing = False
        self.sending = None
        self.wanted_at = 0
        self._forget_inflight()

    def await_snapshot(self) -> None:
        self.pace = Pace.SNAPSHOT
        self.probing = False
        self._forget_inflight()

    def link_lost(self, round_: int) -> None:
        """What is under way may be lost."""
        self.lost = True
        self._pings.clear()
        self.ignore_until = round_
        if self.pace is Pace.REPLICATE:
            self.probe_from(self.match + 1, round_)
        self.probing = False

    def _forget_inflight(self) -> None:
        self._acks.clear()
        self.inflight_bytes = 0
