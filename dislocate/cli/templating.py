"""Templates of a watch: files kept as the flows of some services say, and a command that is run when one became another.

Decides when to write and when to run.  Invariants: all templates are rendered before the first file is touched, so that an
error leaves every old file; a file is replaced whole and only by other content; the command runs once for any number of
changes, never more often than `pause`, and again until it succeeded: a mark beside the file (`.NAME.owed`) says so to a watch
that is started anew.  A service that nobody may be used of leaves the old
files too: servers last known are better than none.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from dislocate.cli.following import RETRY, Following
from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.client.pool import State, pool, scaled
from dislocate.core.errors import LocalError
from dislocate.host.drafts import Draft
from dislocate.host.paths import Seen, see_file
from dislocate.host.render_error import RenderError
from dislocate.host.templates import fill
from dislocate.host.work import Failure

WEIGHTS = 100  # largest weight in a template; finer ones would only mean more reloads
MOVED = 0.2  # of a weight, or MOVED_LEAST if that is more: shares move a little each second, and each reload costs something
MOVED_LEAST = 5
MODE = 0o644  # of a file that was not there
AGAIN = 10.0  # seconds between two looks, and until a command that failed is run again, if nothing changes before


class Output(Struct, frozen=True):
    """A template, and the file that it becomes; None: standard output, or the command's input."""

    template: Path
    out: Path | None


def outputs(templates: Sequence[Path], outs: Sequence[Path]) -> tuple[Output, ...]:
    """Each template with its file, in order.  Raises `click.UsageError`."""
    if len(outs) not in ((0, 1) if len(templates) == 1 else (len(templates),)):
        raise click.UsageError(
            f"--out: got {len(outs)} for {len(templates)} of --template, expected one for each, in the same order"
        )
    return tuple(Output(template, outs[at] if outs else None) for at, template in enumerate(templates))


class Templates:
    """The files of one watch."""

    def __init__(self, agent: AgentConnection, name: str, found: tuple[Output, ...], command: tuple[str, ...]) -> None:
        self._agent = agent
        self._name = name
        self._outputs = found
        self._command = command
        self._services: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, dict[str, int]] = {}  # as last rendered, by service and server
        self._shown: dict[Path, str] = {}  # what was last given to who has no file
        self._complaint = ""
        self._marks = tuple(_mark(each.out) for each in found if each.out is not None and command)
        self._is_owed = any(mark.exists() for mark in self._marks)  # the command has not seen the newest files yet

    def refresh(self, names: Sequence[str]) -> None:
        """Ask the agent how `names` are now; what cannot be had stays as it was."""
        for name in names:
            try:
                self._services[name] = self._agent.get(f"/api/services/{segment(name)}/flows")
            except Problem as problem:
                if problem.status != 404:
                    raise

    def apply(self) -> bool:
        """Render, replace and run; whether all is as the newest answers say.  What is wrong is said, once."""
        try:
            texts = self._render()
        except (RenderError, OSError, UnicodeDecodeError) as error:
            return self._complain(f"{error}; the old files stay")
        try:
            changed = [each for each in texts if self._put(*each)]
        except (Failure, OSError) as error:
            return self._complain(str(error))
        self._is_owed = self._is_owed or bool(changed)
        if self._is_owed and self._command:
            said = "".join(text for output, text in texts if output.out is None)
            if not self._run(said):
                return False
        self._settle()
        self._complaint = ""
        return True

    @property
    def missing(self) -> str:
        """Why there is nothing to render; empty: there is."""
        if not self._services:
            return f"no service matches {self._name!r} yet"
        empty = [name for name, flows in self._services.items() if not _servers(flows)]
        return f"nobody may be used of {', '.join(empty)}" if len(empty) == len(self._services) else ""

    def _render(self) -> list[tuple[Output, str]]:
        services = {name: self._seen(name) for name in sorted(self._services)}
        names: dict[str, object] = {"services": services}
        if self._name in services:
            names["service"] = services[self._name]
        mend = _mend(names)
        return [
            (output, fill(output.template.read_text(encoding="utf-8"), str(output.template), names, mend))
            for output in self._outputs
        ]

    def _seen(self, name: str) -> dict[str, Any]:
        """A service as templates see it, with the weights of before until one is clearly another."""
        service = seen(self._services[name])
        servers = service["servers"]
        new = {f"{each['node']}/{each['id']}": each["weight"] for each in servers}
        kept = self._weights[name] = steadied(self._weights.get(name, {}), new)
        service["servers"] = [{**each, "weight": kept[f"{each['node']}/{each['id']}"]} for each in servers]
        return service

    def _put(self, output: Output, text: str) -> bool:
        """Whether `text` is news.  Raises `Failure`."""
        if output.out is None:
            is_news = self._shown.get(output.template) != text
            self._shown[output.template] = text
            if is_news and not self._command:
                click.echo(text, nl=not text.endswith("\n"))
            return is_news
        path, directory = str(output.out.absolute()), output.out.absolute().parent
        if not directory.is_dir():
            raise Failure("apply", f"--out {output.out}: there is no directory {directory}; make it first")
        before = see_file(path)
        if before is not None and before.content == text.encode():
            return False
        if self._command:
            _mark(output.out).touch()
        found = Seen(MODE, os.geteuid(), os.getegid()) if before is None else before
        draft = Draft(None, path)
        draft.write(Seen(found.mode, found.uid, found.gid, text.encode()))
        draft.put()
        click.echo(f"{output.out} written", err=True)
        return True

    def _run(self, said: str) -> bool:
        try:
            done = subprocess.run(self._command, input=said.encode(), check=False)
        except OSError as error:
            raise click.UsageError(f"{self._command[0]}: {error.strerror}") from error
        if done.returncode:
            return self._complain(f"{self._command[0]} ended with {done.returncode}; it is run again until it succeeds")
        return True

    def _settle(self) -> None:
        """The command has seen all there is."""
        if self._is_owed:
            self._is_owed = False
            for mark in self._marks:
                mark.unlink(missing_ok=True)

    def _complain(self, words: str) -> bool:
        if words != self._complaint:  # once: it may be tried often
            self._complaint = words
            click.echo(words, err=True)
        return False


def steadied(before: Mapping[str, int], now: dict[str, int]) -> dict[str, int]:
    """The weights of `before`, unless others are there, one is spare that was not, or one has clearly moved."""
    if before.keys() != now.keys():
        return now
    for server, weight in now.items():
        old = before[server]
        if (weight == 0) is not (old == 0) or abs(weight - old) > max(MOVED_LEAST, MOVED * old):
            return now
    return dict(before)


def _mark(out: Path) -> Path:
    return out.with_name(f".{out.name}.owed")


def watch_templates(
    agent: AgentConnection, name: str, found: tuple[Output, ...], command: tuple[str, ...], pause: float
) -> None:
    """Keep the files so for ever."""
    templates = Templates(agent, name, found, command)
    following = Following(agent, (name,))
    told = ""
    waiting: dict[str, None] = {}  # what could not be asked for yet
    while True:
        waiting.update(dict.fromkeys(following.take(AGAIN)))
        try:
            templates.refresh(list(waiting))
            waiting.clear()
        except (NoAgent, Problem) as error:  # what is known holds; it is asked again
            told = _tell(str(error), told)
            time.sleep(max(pause, RETRY))
            continue
        told = _tell(templates.missing, told)
        if not templates.missing:
            templates.apply()  # also when nothing came: the template may be another, or the file gone
        time.sleep(pause)


def render_once(
    agent: AgentConnection, name: str, found: tuple[Output, ...], command: tuple[str, ...], names: Sequence[str]
) -> bool:
    """What `names` are now, rendered, and the command run if a file changed; whether that succeeded."""
    templates = Templates(agent, name, found, command)
    templates.refresh(names)
    if templates.missing:
        mend = f"a service with instances that may be used ({templates.missing}): dislocate services lists all"
        raise LocalError("NAME", got=name, expected=mend)
    return templates.apply()


def _tell(words: str, told: str) -> str:
    if words and words != told:
        click.echo(f"{words}; waiting", err=True)
    return words


def seen(flows: Mapping[str, Any]) -> dict[str, Any]:
    """A service as templates see it."""
    home: Mapping[str, Any] = next((row for row in flows["rows"] if row["source"] == flows["home"]), {"shares": ()})
    return {
        "name": flows["service"],
        "home": flows["home"],
        "shares": {share["datacenter"]: share["share"] for share in home["shares"]},
        "policy": flows["policy"],
        "servers": _servers(flows),
        "instances": flows["instances"],
    }


def _servers(flows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who is to be used, then who is spare, in an order that stays."""
    instances = {f"{each['node']}/{each['id']}": each for each in flows["instances"]}
    ready = [server for server in pool(flows) if server.state is State.READY]
    ready.sort(key=lambda server: server.weight == 0.0)
    return [
        {**instances[server.key], "weight": scaled(server.weight, WEIGHTS), "spare": not server.weight}
        for server in ready
    ]


def _mend(names: Mapping[str, object]) -> Callable[[str], str]:
    known = {*names, *(field for value in _dicts(names) for field in value)}

    def mend(message: str) -> str:
        wanted = message.rsplit("'", 2)[1] if message.count("'") >= 2 else ""
        near = get_close_matches(wanted, sorted(known), 1)
        return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(names))}"

    return mend


def _dicts(value: object) -> list[dict[str, Any]]:
    """All tables within `value`."""
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in _dicts(item))]
    return [found for item in value for found in _dicts(item)] if isinstance(value, list) else []
