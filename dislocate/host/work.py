"""One task under way: what every kind of resource is given, and how it says that it failed.

`House` is this host as all tasks share it; `Work` is one task with its time, its secrets and its ear.  What a resource is
about, apart from its id, is `about`: two specifications that name one file mean the same thing.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Protocol

from msgspec import Struct

from dislocate.core.boundary.requests import Request, Result
from dislocate.core.boundary.runs import Task
from dislocate.core.boundary.spec import Command, Directory, File, Key, Package, Process, Resource, Service
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import DislocateError
from dislocate.core.units import SECOND
from dislocate.host.before import Definition, Images
from dislocate.host.render_error import RenderError
from dislocate.host.rendering import Renderer
from dislocate.host.secrets import Keys, Secrets
from dislocate.host.templates import is_plain, render
from dislocate.host.threads import in_thread

SYSTEMD = FilePath("/run/systemd/system")  # is there exactly where systemd runs: sd_booted(3)

# Asks the agent's own node and waits for the answer.  Raises TimeoutError.
Asks = Callable[[Request], Result]


class Failure(DislocateError):
    """It could not be brought about.  What was there before is there still, unless `words` says otherwise."""

    def __init__(self, kind: str, words: str, code: int | None = None) -> None:
        super().__init__(kind, words)
        self.kind = kind  # as in `TaskOutcome`
        self.words = words
        self.code = code

    def __str__(self) -> str:
        return self.words


class Processes(Protocol):
    """`supervise.Supervisor`."""

    def definition(self, name: str) -> Definition | None:
        """What is to run under this name."""
        ...

    def become(self, name: str, wanted: Definition | None) -> None:
        """Make it run so.  Raises `Failure`: then it runs as before."""
        ...


class House(Struct, frozen=True, kw_only=True):
    """This host, and the agent's own node."""

    state_dir: FilePath
    images: Images
    facts: Callable[[], Mapping[str, object]]
    ask: Asks
    instances: Callable[[str], tuple[InstanceView, ...]]  # of a service of the catalog, on this node
    processes: Processes
    renderer: Renderer
    keys: Keys
    shown_environment: Callable[[Definition], dict[str, str]]  # filled in, with marks in place of secrets
    systemd: FilePath = SYSTEMD


class Work:
    """One task under way."""

    def __init__(self, house: House, task: Task, secrets: Secrets, tell: Callable[[bytes], None] | None = None) -> None:
        self.house = house
        self.task = task
        self.secrets = secrets
        self.tell = tell  # takes what a command writes; None: nobody wants it
        self._deadline = time.monotonic() + task.resource.timeout / SECOND

    @property
    def left(self) -> float:
        """Seconds of the task's time."""
        return max(0.0, self._deadline - time.monotonic())

    def render(self, text: str, field: str) -> str:
        """`text` as it is meant for this host.  Raises `Failure`."""
        return self._render(text, field, self.secrets.value)

    def render_shown(self, text: str, field: str) -> str:
        """The same for people: each secret is its mark."""
        return self._render(text, field, self.secrets.mark)

    def render_environment(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {name: self.render(text, f"environment.{name}") for name, text in texts.items()}

    def render_environment_shown(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {name: self.render_shown(text, f"environment.{name}") for name, text in texts.items()}

    def _render(self, text: str, field: str, secret: Callable[[str], str]) -> str:
        facts, values = self.house.facts(), self.task.values
        try:
            if in_thread(is_plain, text):
                return in_thread(lambda: render(text, field, facts=facts, values=values, secret=secret))
            return self.house.renderer.render(text, field, facts=facts, values=values, secret=secret, within=self.left)
        except RenderError as error:
            raise Failure("render", str(error)) from error


def about(resource: Resource) -> str:
    """What it is about: 'file /etc/motd'."""
    match resource:
        case File(path=path):
            return f"file {path}"
        case Directory(path=path):
            return f"directory {path}"
        case Command(run=run):
            return f"command {' '.join(run)}"
        case Service(unit=unit):
            return f"service {unit}"
        case Process(name=name):
            return f"process {name}"
        case Package(name=name, venv=venv):
            return f"package {name} {venv}".rstrip()
        case Key(key=key):
            return f"key {key}"
