"""The meter: what agents sent, sampled once a second, for claims about budgets."""

from collections.abc import Collection

from msgspec import Struct

from dislocate.core.units import SECOND
from sim.process import Machine
from sim.schedule import Schedule


class Sample(Struct, frozen=True, gc=False):
    """Sums over all agents since the start."""

    at: int
    agent_seconds: int
    messages: int  # datagrams and messages
    bytes: int
    terms: int  # the highest term of the store


class Meter:
    """Samples `machines` from now on."""

    def __init__(self, schedule: Schedule, machines: Collection[Machine], *, has_store: bool) -> None:
        self._has_store = has_store
        self._schedule = schedule
        self._machines = machines
        self._samples: list[Sample] = []
        schedule.call_last(schedule.now, self._due, None)

    def measured(self, what: str, since: int) -> float:
        """'messages' or 'bytes' that an agent sent in a second, on average since then; by how much the 'terms' grew."""
        first = next((one for one in self._samples if one.at >= since), self._samples[-1])
        last = self._samples[-1]
        if what == "terms":
            return last.terms - first.terms
        spent = last.messages - first.messages if what == "messages" else last.bytes - first.bytes
        return spent / max(1, last.agent_seconds - first.agent_seconds)

    def _due(self, _: None, __: None, ___: None) -> None:
        before = self._samples[-1].agent_seconds if self._samples else 0
        self._samples.append(
            Sample(
                self._schedule.now,
                before + sum(machine.process is not None for machine in self._machines),
                sum(machine.datagrams_sent + machine.messages_sent for machine in self._machines),
                sum(machine.bytes_sent for machine in self._machines),
                max((one.process.node.store.term for one in self._machines if one.process is not None), default=0)
                if self._has_store
                else 0,
            )
        )
        self._schedule.call_last(self._schedule.now + SECOND, self._due, None)
