"""Absence: an agent that what runs on does without for a while, said once when it goes and once when it is back."""

import click

from dislocate.client.connection import AgentConnection


class Absence:
    """Of one agent."""

    def __init__(self, agent: AgentConnection, period: float) -> None:
        self._agent = agent
        self._period = period
        self._is_said = False

    def begins(self, error: Exception | None = None) -> None:
        """A stream of it ended, or did not begin because of `error`.  A restart is over before anybody needs to know."""
        if error is not None and not self._is_said:
            self._is_said = True
            why = str(error).splitlines()[0]
            click.echo(
                f"{why}: everything is left as it is until an agent answers there; asked each {self._period:g} s",
                err=True,
            )

    def ends(self) -> None:
        """It answers."""
        if self._is_said:
            self._is_said = False
            click.echo(f"the agent at {self._agent.where} answers again", err=True)
