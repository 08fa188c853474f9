"""`dislocate run pause`, `resume` and the other verbs: what an operator makes of a run, and how it stands then.

A verb that was done is told with how the run is just after it, since the leader may go on at once, or hold it again.
"""

import json
from typing import Any

import click

from dislocate.cli.output import agent_command, printable
from dislocate.cli.run_progress import next_command, state_of
from dislocate.cli.run_spec import run_id
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, NoAgent, Problem, segment
from dislocate.core.errors import LocalError

_WHY = click.option("--why", default="", metavar="WORDS", help="For the audit.")
_VERSION = click.option("--version", type=int, default=0, metavar="N", help="Only if the run is at this version.")
_DONE = {
    "approve": "your approval counts",
    "pause": "nothing more of it begins, and what is in flight finishes",
    "resume": "it was resumed",
    "promote": "soak and gates of the present batch count as passed",
    "skip": "{node} is left out of it",
    "retry": "{node} is to try its part again",
    "abort": "everything is left as it is, and what is in flight finishes",
    "revert": "what it did is taken back, the latest first",
}


def _steer(agent: AgentConnection, as_json: bool, ident: str, verb: str, body: dict[str, Any]) -> None:
    run = run_id(agent, ident)
    answer = agent.send("POST", f"/api/runs/{segment(run)}/{verb}", body, STORE_TIMEOUT)
    if as_json:
        click.echo(json.dumps(answer))
        return
    done = _DONE[verb].format(node=body.get("node"))
    try:
        now = printable(agent.get(f"/api/runs/{segment(run)}", STORE_TIMEOUT))
    except (NoAgent, Problem) as error:  # which is no reason to say that the verb was not done
        click.echo(f"run {run}, version {answer['version']}: {done}")
        click.echo(f"how it stands now is not known: {error}\ndislocate run status {run}", err=True)
        return
    click.echo(f"run {run} of {now['name']} is {state_of(now)}, version {now['version']}: {done}")
    click.echo(next_command(run, now["state"], now["hold"], is_seen=verb in ("abort", "revert")))


def _verb(name: str, words: str) -> click.Command:
    """A verb about a whole run."""

    @click.command(name, help=f"{words}\n\n\b\ndislocate run {name} 7\n")
    @click.argument("ident", metavar="RUN")
    @_WHY
    @_VERSION
    @agent_command
    def steer(agent: AgentConnection, as_json: bool, ident: str, why: str, version: int) -> None:
        _steer(agent, as_json, ident, name, {"words": why, "version": version})

    return steer


def _node_verb(name: str, words: str) -> click.Command:
    """A verb about one node."""

    @click.command(name, help=f"{words}\n\n\b\ndislocate run {name} 7 fra/a1\n")
    @click.argument("ident", metavar="RUN")
    @click.argument("node", metavar="DC/NAME")
    @_WHY
    @_VERSION
    @agent_command
    def steer(agent: AgentConnection, as_json: bool, ident: str, node: str, why: str, version: int) -> None:
        _steer(agent, as_json, ident, name, {"node": node, "words": why, "version": version})

    return steer


@click.command()
@click.argument("ident", metavar="RUN")
@_WHY
@_VERSION
@click.option("--force", is_flag=True, help="Also where a later run changed the same; the audit says so, and --why.")
@agent_command
def revert(agent: AgentConnection, as_json: bool, ident: str, why: str, version: int, force: bool) -> None:
    """Take back what RUN did, in reverse order; also when it is over.

    What a later run changed too is that one's: it is to be reverted first.  Where it cannot be, --force puts back what was
    there before RUN all the same.

    \b
    dislocate run revert 7
    dislocate run revert 7 --force --why 'run 9 cannot be reverted'
    """
    if force and not why:
        raise LocalError("--why", got=why, expected="why it is forced: the audit is to say it")
    _steer(agent, as_json, ident, "revert", {"words": why, "version": version, "force": force})


VERBS = (
    _verb("approve", "Approve RUN, which somebody else started."),
    _verb("pause", "Begin nothing more in RUN until it is resumed; what is in flight finishes."),
    _verb("resume", "Go on with RUN."),
    _verb("promote", "Count soak and gates of RUN's present batch as passed."),
    _node_verb("skip", "Go on with RUN without this node."),
    _node_verb("retry", "Let this node try its part of RUN again."),
    _verb("abort", "End RUN and leave everything as it is now; what is in flight finishes."),
    revert,
)
