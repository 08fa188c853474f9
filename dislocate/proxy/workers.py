"""Several worker processes on the same ports: start them, add up what they tell, replace who dies, end them.

Each is a fresh interpreter, not a fork.  The kernel shares connections out by their addresses (SO_REUSEPORT).  If this
process is killed, the workers notice and end as on SIGTERM.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from dislocate.core.units import SECOND
from dislocate.proxy.entrance import listen_at
from dislocate.proxy.loop import IN, Loop
from dislocate.proxy.settings import Listen, Plan
from dislocate.proxy.tally import Report, added
from dislocate.proxy.words import Begin, Ready, Reported, Said, hear, tell
from dislocate.proxy.worker import TICK, Say

PAUSE = 1 * SECOND  # before one that died is replaced


class Member:
    """One worker process."""

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", line: socket.socket) -> None:
        self.number = number
        self.process = process
        self.line = line
        self.is_ready = False


class Workers:
    """`count` processes that carry out `plan`.  `plan.listens` must name ports: see `reserve`."""

    def __init__(self, plan: Plan, count: int, say: Say) -> None:
        self._plan = replace(plan, is_one_of_many=True)
        self._count = count
        self._say = say
        self._loop = Loop()
        self._members: dict[int, Member] = {}
        self._reports: dict[int, Report] = {}
        self._past: list[Report] = []  # of members that are gone
        self._starts = 0
        self._is_ending = False
        self._has_begun = False
        self._code = 0

    def run(self, ready: Callable[[], None], reported: Callable[[Report], None] | None = None) -> int:
        """Until `end` and the workers have ended; the exit code: 1 when they could not begin."""
        self._ready = ready
        self._reported = reported
        for number in range(self._count):
            self._start(number)
        self._loop.at(self._loop.now + TICK, self._tick)
        self._loop.run()
        if reported is not None and self._has_begun:
            reported(self._sum())
        return self._code

    def end(self) -> None:
        """As for one worker: a second time, at once.  From any thread and signal handlers."""
        self._loop.soon(self._end)

    # ---- within the loop

    def _start(self, number: int) -> None:
        if self._is_ending:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "dislocate.proxy", str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, process_group=0)
        self._starts += 1
        member = self._members[number] = Member(number, process, ours)
        tell(ours, Begin(self._plan, f"proxy-{os.getpid()}-{self._starts}"))
        self._loop.watch(ours.fileno(), IN, partial(self._heard, member))

    def _heard(self, member: Member, _events: int) -> None:
        match hear(member.line):
            case None:
                self._lost(member)
            case Said(words):
                self._say(words)
            case Reported(report):
                self._reports[member.number] = report
            case Ready():
                member.is_ready = True
                if not self._has_begun and all(each.is_ready for each in self._members.values()):
                    self._has_begun = True
                    self._ready()

    def _lost(self, member: Member) -> None:
        self._loop.drop(member.line)
        code = member.process.wait()
        del self._members[member.number]
        report = self._reports.pop(member.number, None)
        if report is not None:
            for tally in report.services.values():
                tally.open, tally.age, tally.trouble = 0, 0.0, ""
            self._past.append(replace(added([*self._past, report]), workers=0))
            del self._past[:-1]
        if not self._is_ending and not self._has_begun:
            self._code = 1
            self._end()
        elif not self._is_ending:
            self._say(f"worker {member.number} (process {member.process.pid}) ended with {code}: it is started again")
            self._loop.at(self._loop.now + PAUSE, partial(self._start, member.number))
        if self._is_ending and not self._members:
            self._loop.stop()

    def _end(self) -> None:
        self._is_ending = True
        for member in self._members.values():
            member.process.terminate()
        if not self._members:
            self._loop.stop()

    def _tick(self) -> None:
        self._loop.at(self._loop.now + TICK, self._tick)
        if self._reported is not None and self._has_begun:
            self._reported(self._sum())

    def _sum(self) -> Report:
        return added([*self._past, *self._reports.values()])


def reserve(listen: Listen) -> tuple[Listen, socket.socket]:
    """`listen` with its port, and a socket that keeps the port for workers to share.  Raises `LocalError` if it is taken."""
    with listen_at(listen) as alone:  # fails where anybody listens, also one who would share
        settled = Listen(listen.host, int(alone.getsockname()[1]), listen.service)
    return settled, listen_at(settled, is_one_of_many=True)
