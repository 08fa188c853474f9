"""A process that renders one template and ends: what it may take of time and memory is the kernel's to hold.

It reads `Asked` from its standard input and answers with `Answer`, both MessagePack.  One that takes more processor time than
it may is ended by SIGXCPU; for one that wants more memory there is none.  It knows the secrets of its one template.
"""

import os
import resource
import sys

import msgspec
from msgspec import Struct

from dislocate.host.render_error import RenderError
from dislocate.host.templates import render

PROCESSOR_TIME = 2  # seconds; starting takes 0.2 of them, and a file of some thousand lines 0.1
MEMORY = 256 * 1024 * 1024  # bytes of addresses; 30 MiB are there when it begins


class Asked(Struct, frozen=True):
    """One template, as `render` wants it."""

    text: str
    field: str
    facts: dict[str, object]
    values: dict[str, str]
    secrets: dict[str, str]  # those that it names and that can be opened here
    closed: dict[str, str]  # the others, and why not


class Answer(Struct, frozen=True):
    """What it becomes, or what is wrong with it."""

    text: str = ""
    mistake: str = ""


def answer(asked: Asked) -> Answer:
    def secret(name: str) -> str:
        if name in asked.closed:
            raise RenderError(asked.closed[name])
        return asked.secrets[name]

    facts = {
        name: tuple(fact) if isinstance(fact, list) else fact for name, fact in asked.facts.items()
    }  # as they were
    try:
        return Answer(render(asked.text, asked.field, facts=facts, values=asked.values, secret=secret))
    except RenderError as error:
        return Answer(mistake=str(error))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_TIME, PROCESSOR_TIME + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold secrets
    os.nice(10)  # the agent is listened to first
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Asked)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(asked)))


if __name__ == "__main__":
    main()
