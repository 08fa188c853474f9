"""`dislocate doctor`: what is wrong with this host, and the mend, before or while an agent runs."""

import logging
import sys
from pathlib import Path as FilePath

import click
import msgspec

DEFAULT_CONFIG = FilePath("/etc/dislocate/agent.toml")


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=FilePath),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration of the agent, as for `dislocate agent`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(path: FilePath, as_json: bool) -> None:
    """Look for what would keep the agent of this host from working: secret, disk, ports, limits, clock, seeds.

    Changes nothing and may run beside the agent.  Exits 1 when a finding says FAIL.

    \b
    dislocate doctor --config agent.toml
    """
    from dislocate.doctor import examine
    from dislocate.findings import Level

    logging.getLogger("dislocate").addHandler(logging.NullHandler())  # what it would warn of is a finding here
    findings = []
    for finding in examine(path):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.level:5} {finding.what}: {finding.found}")
            if finding.mend:
                click.echo(f"      mend: {finding.mend}")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    if as_json:
        click.echo(msgspec.json.encode({"healthy": not counts[Level.FAIL], "findings": findings}))
    else:
        click.echo(f"\n{counts[Level.FAIL]} to mend, {counts[Level.WARN]} to look at, {counts[Level.OK]} well")
    sys.exit(1 if counts[Level.FAIL] else 0)
