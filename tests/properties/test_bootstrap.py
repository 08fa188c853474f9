"""Whatever happens to messages, processes and disks, servers of one list found one group; and in the end they do."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.consensus.founding_duties import Founded
from dislocate.core.consensus.messages import Append, Consensus, ServerId
from dislocate.core.consensus.promises import DISK_KEY, GROUP_KEY, log_key
from dislocate.core.units import SECOND
from tests.support.founders import Agent, Town

SERVERS = ("fra/a1", "fra/a2", "lon/a1", "wdc/a1", "wdc/a2")

_server = st.integers(0, len(SERVERS) - 1)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(0, 40)),
        st.tuples(st.just("deliver"), st.integers(0, 3)),
        st.tuples(st.just("repeat"), st.integers(0, 40)),
        st.tuples(st.just("lose"), st.integers(0, 40)),
        st.tuples(st.just("tick"), _server),
        st.tuples(st.just("store"), _server),
        st.tuples(st.just("store"), _server),
        st.tuples(st.just("restart"), _server),
        st.tuples(st.just("wipe"), _server),
        st.tuples(st.just("forget"), _server),
        st.tuples(st.just("cut"), st.lists(_server, max_size=3)),
        st.tuples(st.just("work"), _server),
        st.tuples(st.just("work"), _server),
    ),
    min_size=20,
    max_size=160,
)


class Watched:
    """A town of which every group ever founded is known, with its first entry and the disks that took part in it."""

    def __init__(self, count: int) -> None:
        self.town = Town(SERVERS[:count])
        self.town.heard_of = self.heard_of
        self.entries: dict[bytes, bytes] = {}
        self.parts: dict[ServerId, bytes] = {}
        self.town.start()

    def heard_of(self, agent: Agent, fact: object) -> None:
        if not isinstance(fact, Founded):
            return
        entry = agent.records[log_key(1)]
        assert self.entries.setdefault(fact.group.uuid, entry) == entry
        assert self.parts.setdefault(agent.founding.server, fact.group.uuid) == fact.group.uuid
        for other in self.town.agents.values():
            uuid = self.parts.get(self.disk_of(other)) if DISK_KEY in other.records else None
            assert uuid in (None, fact.group.uuid), "a living disk takes part in another group"

    @staticmethod
    def disk_of(agent: Agent) -> ServerId:
        return ServerId(agent.path, msgspec.msgpack.decode(agent.records[DISK_KEY]))

    def do(self, deed: str, argument) -> None:
        town = self.town
        agents = list(town.agents.values())
        if deed in ("deliver", "repeat", "lose"):
            if town.under_way and deed == "lose":
                town.under_way.pop(argument % len(town.under_way))
            elif town.under_way:
                town.deliver(argument % len(town.under_way), keep=deed == "repeat")
        elif deed == "cut":
            apart = {agents[at % len(agents)].path for at in argument}
            town.may_pass = lambda sender, receiver: (sender.path in apart) == (receiver.path in apart)
        else:
            self.do_to(deed, agents[argument % len(agents)])

    def do_to(self, deed: str, agent: Agent) -> None:
        if deed == "tick":
            self.town.now += SECOND
            agent.tick()
        elif deed == "store" and agent.unstored:
            agent.store()
        elif deed == "restart":
            agent.stop()
            agent.start()
        elif deed == "wipe":
            agent.wipe()
            agent.start()
        elif deed == "forget" and GROUP_KEY not in agent.records:
            agent.stop()
            agent.forget_promise()
            agent.start()
        elif deed == "work":
            self.work(agent)

    def work(self, agent: Agent) -> None:
        """A while in which all goes well for `agent`; a member sends to the others, as a leader would."""
        agent.tick()
        while agent.unstored:
            agent.store()
        for at in range(min(10, len(self.town.under_way)) - 1, -1, -1):
            if self.town.under_way[at][1] == agent.path:
                self.town.deliver(at)
        founding = agent.founding
        if founding.is_member:
            for to in founding.members:
                if to != founding.server:
                    append = Append(0, 0, (), 0, 1)
                    self.town.post(agent, to.path, Consensus(founding.group, founding.server, to, 1, append))


@given(count=st.integers(1, 5), deeds=deeds)
def test_no_two_groups_are_founded_whatever_is_lost_late_doubled_crashed_wiped_or_cut(count, deeds):
    watched = Watched(count)
    for deed, argument in deeds:
        watched.do(deed, argument)


@given(
    count=st.integers(1, 5),
    deeds=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(("deliver", "repeat", "lose")), st.integers(0, 40)),
            st.tuples(st.sampled_from(("tick", "store", "restart", "work")), _server),
            st.tuples(st.just("cut"), st.lists(_server, max_size=3)),
        ),
        max_size=80,
    ),
)
def test_without_a_lost_disk_all_servers_become_members_of_one_group_once_they_reach_each_other(count, deeds):
    watched = Watched(count)
    for deed, argument in deeds:
        watched.do(deed, argument)
    watched.do("cut", [])
    watched.town.run(4)
    agents = watched.town.agents.values()
    assert all(agent.founding.is_member and agent.founding.problem == "" for agent in agents)
    assert len({agent.founding.group.uuid for agent in agents}) == 1
