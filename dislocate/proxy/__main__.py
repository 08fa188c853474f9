"""One worker of several: `python -m dislocate.proxy FD`, where FD is its line to who started it."""

import os
import signal
import socket
import sys

from dislocate.client.connection import find_agent
from dislocate.core.errors import DislocateError
from dislocate.proxy.entrance import listen_at
from dislocate.proxy.loop import IN
from dislocate.proxy.routes import AgentRoutes
from dislocate.proxy.words import Begin, Ready, Reported, Said, hear, tell
from dislocate.proxy.worker import Worker, settle_process


def main() -> int:
    """0 when it ended as it was told to, 1 when it could not begin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for who started us
    line = socket.socket(fileno=int(sys.argv[1]))
    word = hear(line)
    if not isinstance(word, Begin):
        return 1
    plan = word.plan
    source = AgentRoutes(find_agent(plan.agent, plan.token), plan.services, word.caller)
    try:
        bound = [listen_at(listen, is_one_of_many=True) for listen in plan.listens]
        worker = Worker(plan, source, bound, word.caller, say=lambda words: tell(line, Said(words)))
    except DislocateError as error:
        tell(line, Said(str(error)))
        return 1

    def parted(_events: int) -> None:
        """Who started us is gone: nobody would end us."""
        worker.loop.mute(line.fileno())
        worker.end()

    worker.loop.watch(line.fileno(), IN, parted)
    signal.signal(signal.SIGTERM, lambda *_: worker.end())
    settle_process()
    worker.run(ready=lambda: tell(line, Ready()), reported=lambda report: tell(line, Reported(report)))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads that wait for the agent are not waited for
