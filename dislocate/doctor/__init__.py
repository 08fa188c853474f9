"""The doctor: what would keep an agent with this configuration from working, what is wrong, and the mend.

Looks only: nothing that it does outlasts it, and it becomes no member.  `examine(path)` yields findings as it comes to
them, the cheap and local ones first: the configuration, this host, seeds, the agent that runs.
"""

from collections.abc import Iterator
from pathlib import Path as FilePath

from dislocate.config import load_config
from dislocate.core.errors import ConfigError
from dislocate.doctor.agent import examine_agent
from dislocate.doctor.configuration import examine_servers
from dislocate.doctor.host import examine_host, examine_secret, running_agent
from dislocate.doctor.seeds import examine_seeds
from dislocate.findings import Finding, Level
from dislocate.io.keyring import Keyring


def examine(path: FilePath) -> Iterator[Finding]:
    """Everything there is to say about an agent with the configuration at `path`.  Raises nothing."""
    try:
        config = load_config(path)
    except ConfigError as error:
        yield Finding("configuration", Level.FAIL, f"{error.field}: got {error.got!r}", f"expected {error.expected}")
        return
    yield Finding("configuration", Level.OK, f"{path} describes {config.path}")
    yield from examine_servers(config)
    secrets = yield from examine_secret(config)
    running = running_agent(config)
    yield from examine_host(config, running)
    if secrets:
        yield from examine_seeds(config, Keyring(secrets))
    if running:
        yield from examine_agent(config)
