"""The mutants of the replicated store: bugs that real stores had, or that somebody could write tomorrow."""

from tests.mutants.mutant import Mutant

ONE_RACK = ("fra/a1", "fra/a2", "fra/a3")
THREE = ("fra/a1", "wdc/a1", "syd/a1")
FIVE = ("fra/a1", "fra/a2", "wdc/a1", "wdc/a2", "syd/a1")

KV = 'kind = "kv"\nclients = 4\nrate = 5.0'
WRITES = 'kind = "kv"\nclients = 4\nrate = 5.0\nmix = { put = 3, cas = 1 }'
READS = 'kind = "kv"\nclients = 6\nrate = 8.0\nkeys = 2\nmix = { put = 1, get = 3 }'
LOCAL = 'kind = "kv"\nclients = 6\nrate = 4.0\nmix = { put = 1, local = 1 }'
LOCKS = 'kind = "locks"\nclients = 3\nkeys = 1\nttl = "5s"'
WATCH = 'kind = "watch"\nclients = 2'


def group(duration: int, servers: tuple[str, ...], workloads: tuple[str, ...], *faults: str) -> str:
    """A story without expectations; a fault is 'SECONDS VERB field=value ...', several values joined by '+'."""
    nodes: dict[str, int] = {}
    for path in servers:
        nodes[path.partition("/")[0]] = nodes.get(path.partition("/")[0], 0) + 1
    listed = ", ".join(f'"{path}"' for path in servers)
    lines = ['title = "A mutant"', 'why = "To find it"', f'duration = "{duration}s"', f"servers = [{listed}]"]
    for name, count in nodes.items():
        lines += [f"[datacenters.{name}]", f"nodes = {max(2, count)}"]
    for number, workload in enumerate(workloads, 1):
        lines += ["[[workloads]]", f'name = "w{number}"', workload]
    for fault in faults:
        time, verb, *fields = fault.split()
        lines += ["[[at]]", f'time = "{time}s"', f'do = "{verb}"']
        lines += [_field(*field.split("=")) for field in fields]
    return "\n".join(lines)


def _field(name: str, value: str) -> str:
    if value in ("true", "false") or name in ("factor", "loss"):
        return f"{name} = {value}"
    if "+" in value:
        return f"{name} = [" + ", ".join(f'"{one}"' for one in value.split("+")) + "]"
    return f'{name} = "{value}"'


QUIET = group(25, ONE_RACK, (KV,))
KILLS = group(
    62,
    FIVE,
    (),
    *(f"{10 + 12 * n} lead target={path}" for n, path in enumerate(FIVE[:4])),
    *(f"{16 + 12 * n} kill target={path} for=4s" for n, path in enumerate(FIVE[:4])),
)

STORE_MUTANTS = (
    Mutant(
        name="a-half-founds-a-group",
        why="Who hears most of the listed servers founds the group with those.",
        module="dislocate.core.consensus.rollcall",
        original="""        others = [path for path in self.servers if path != self.me]
        heard = [self._heard[path] for path in others if path in self._heard]
""",
        planted="""        others = [path for path in self.servers if path != self.me and path in self._heard]
        heard = [self._heard[path] for path in others]
""",
        invariant="one group",
        scenario=group(40, THREE, (), "0 cut from=fra to=* for=20s"),
    ),
    Mutant(
        name="votes-for-everybody",
        why="The vote of this term is not looked up before another one is given.",
        module="dislocate.core.consensus.elections",
        original="        is_free = state.voted_for == sender or (state.voted_for is None and state.leader is None)\n",
        planted="        is_free = True\n",
        invariant="one leader a term",
        scenario=KILLS,
        seeds=(1, 2, 3, 4, 5, 6),
    ),
    Mutant(
        name="the-chain-begins-anew",
        why="A start takes up the applied state, and not how its log is chained.",
        module="dislocate.core.store.replica",
        original="        self._digest = found.applied.digest if found else 0\n",
        planted="        self._digest = 0\n",
        invariant="one log",
        scenario=group(40, ONE_RACK, (KV,), "20 restart target=fra/a2"),
    ),
    Mutant(
        name="done-twice",
        why="An asking that is sent again is not known again (etcd's and Consul's clients).",
        module="dislocate.core.store.sessions",
        original="        if (answered := session.answers.get(origin.seq)) is not None:\n",
        planted="        if (answered := session.answers.get(-origin.seq)) is not None:\n",
        invariant="the state is that of the log",
        scenario=group(60, THREE, (WRITES,), *(f"{12 + 6 * n} kill target={THREE[n % 3]} for=3s" for n in range(7))),
        seeds=(1, 2, 3, 4, 5, 6),
    ),
    Mutant(
        name="votes-for-shorter-logs",
        why="Only the terms of the last entries are compared (Raft paper, 5.4.1, by half).",
        module="dislocate.core.consensus.elections",
        original="        return (question.last_term, question.last_index) >= (log.last_term, log.last_index)\n",
        planted="        return question.last_term >= log.last_term\n",
        invariant="leaders are complete",
        scenario=group(
            50,
            FIVE,
            (WRITES,),
            *(f"{12 + 9 * n} cut from={FIVE[n]} to={FIVE[(n + 1) % 5]}+{FIVE[(n + 2) % 5]} for=6s" for n in range(4)),
            *(f"{17 + 9 * n} kill target={FIVE[(n + 1) % 5]}+{FIVE[(n + 2) % 5]} for=4s" for n in range(4)),
        ),
        seeds=(1, 2, 3, 4, 5, 6),
    ),
    Mutant(
        name="commits-go-back",
        why="A follower is told of no commit beyond what it is sent, and of fewer when it is probed.",
        module="dislocate.core.consensus.leading",
        original="told = Append(prev, prev_term, entries, state.commit,",
        planted="told = Append(prev, prev_term, entries, min(state.commit, prev),",
        invariant="commits only grow",
        scenario=group(40, THREE, (WRITES,), "15 cut from=fra to=wdc for=10s", "27 restart target=syd/a1"),
    ),
    Mutant(
        name="votes-before-it-is-written",
        why="The answer leaves beside the write and not after it (PySyncObj#84).",
        module="dislocate.core.consensus.elections",
        original="state.say(sender, VoteGiven(True, False), Needs.AFTER_ALL)",
        planted="state.say(sender, VoteGiven(True, False), Needs.AT_ONCE)",
        invariant="a vote is durable before it is said",
        scenario=QUIET,
    ),
    Mutant(
        name="acknowledges-before-it-is-written",
        why="The answer leaves beside the write and not after it (PySyncObj#84).",
        module="dislocate.core.consensus.following",
        original="            state.say(leader, answer, Needs.AFTER_ALL)\n",
        planted="            state.say(leader, answer, Needs.AT_ONCE)\n",
        invariant="an entry is durable before it is acknowledged",
        scenario=QUIET,
    ),
    Mutant(
        name="the-leader-counts-itself-at-once",
        why="What a leader has sent, it has: its own disk is not asked.",
        module="dislocate.core.consensus.leading",
        original="            return min(self._state.log.stable, self._state.flushed)\n",
        planted="            return self._state.flushed\n",
        invariant="what is applied is on a majority of disks",
        scenario=QUIET,
    ),
    Mutant(
        name="the-state-depends-on-who-holds-it",
        why="Something of the host finds its way into what is computed from the log.",
        module="dislocate.core.store.audit",
        original="        self._digests[index] = self._replica.machine.digest\n",
        planted="        self._digests[index] = self._replica.machine.digest + (self._replica.me.path == 'wdc/a1')\n",
        invariant="no server contradicts the log",
        scenario=group(60, ("fra/a1", "fra/a2", "wdc/a1"), (WRITES,)),
    ),
    Mutant(
        name="asks-for-votes-at-once",
        why="Without PreVote, who is cut off raises the term each time it loses patience (etcd#9333).",
        module="dislocate.core.consensus.elections",
        original="        self.ask(pre=True)\n",
        planted="        self.ask(pre=False)\n",
        invariant="nobody raises the term alone",
        scenario=group(40, THREE, (), "15 cut from=syd to=* for=20s"),
    ),
    Mutant(
        name="reads-without-asking",
        why="A leader answers reads without a majority confirming that it still leads (etcd 0.4.1, Consul; Jepsen 2014).",
        module="dislocate.core.store.serving",
        original="        self._confirm(asked.seq, answer, lambda: answer(Answered(asked.seq, self.read_now(request, 0))))\n",
        planted="        answer(Answered(asked.seq, self.read_now(request, 0)))\n",
        invariant="the store is linearizable",
        scenario=group(
            80,
            THREE,
            (READS,),
            *(f"{12 + 20 * n} pause target={THREE[n]} for=9s" for n in range(3)),
            *(f"{13 + 20 * n} cut from={THREE[n]} to=* for=12s" for n in range(3)),
        ),
        seeds=(1, 2, 3, 4, 5, 6),
    ),
    Mutant(
        name="commits-come-with-entries",
        why="A heartbeat's commit is not looked at: the last entries wait for the next one to be applied.",
        module="dislocate.core.consensus.following",
        original="        state.commit_to(min(append.commit, agreed))\n",
        planted="        if append.entries:\n            state.commit_to(min(append.commit, agreed))\n",
        invariant="servers agree in the end",
        scenario=group(80, ONE_RACK, (WRITES + '\nuntil = "20s"',)),
    ),
    Mutant(
        name="a-change-is-left-out",
        why="A watch goes on after the revision that it asks for, counted from the next one.",
        module="dislocate.core.store.changes",
        original="        start = bisect_right(self._changes, revision, self._first, key=_revision)\n        later",
        planted="        start = bisect_right(self._changes, revision + 1, self._first, key=_revision)\n        later",
        invariant="watchers miss nothing",
        scenario=group(40, THREE, (WRITES, WATCH), "15 pause target=fra/a2+wdc/a2+syd/a2 for=3s"),
    ),
    Mutant(
        name="always-as-new-as-can-be",
        why="What a server has is called current whoever it last heard.",
        module="dislocate.core.consensus.raft",
        original="        return 0 if is_behind else max(0, state.led_at)\n",
        planted="        return state.now\n",
        invariant="local reads tell their age",
        scenario=group(50, THREE, (LOCAL,), "15 cut from=syd to=* for=30s"),
    ),
    Mutant(
        name="keeping-alive-keeps-nothing",
        why="The leader answers that the lease lives, and counts on as before.",
        module="dislocate.core.store.serving",
        original="                self._renew(request.lease, held.ttl)\n            answer(",
        planted="                pass\n            answer(",
        invariant="leases last and end",
        scenario=group(40, ONE_RACK, (LOCKS,)),
    ),
    Mutant(
        name="an-older-token",
        why="The token that is told is the revision before the one that took the lock.",
        module="dislocate.core.store.transactions",
        original="        return (kv,)\n",
        planted="        return (KeyValue(kv.key, kv.value, self._revision - 1, kv.modified, kv.version, kv.lease),)\n",
        invariant="tokens fence",
        scenario=group(25, ONE_RACK, (LOCKS,)),
    ),
)
