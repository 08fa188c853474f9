"""What is done to the state directory of a stopped agent: forced recovery, and giving up a promise.

The directory is locked as a running agent locks it, so neither can be done under one; what is decided (`core.store.recovery`)
is stored in one durable transaction, or nothing is.
"""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import TypeVar

from dislocate.config import Config
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.inputs import Stored, StoreFailed
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.core.store.recovery import GivenUp, Recovered, give_up_promise, recover_by_force
from dislocate.io.disk import Disk

PATIENCE = 600.0  # seconds: a store of 64 MiB on a slow disk

Decision = TypeVar("Decision", Recovered, GivenUp)


def recover(config: Config) -> Recovered:
    """Make the server of `config` the whole group.  Raises `LocalError`; then nothing was changed."""
    return _change(config, lambda records: recover_by_force(config.path, records))


def forget_promise(config: Config) -> GivenUp:
    """Let the server of `config` promise anew.  Raises `LocalError`; then nothing was changed."""
    return _change(config, lambda records: give_up_promise(config.path, records))


def _change(config: Config, decide: Callable[[tuple[StoredRecord, ...]], Decision]) -> Decision:
    state_dir = FilePath(config.node.state_dir)
    if not (state_dir / "state.db").exists():
        raise LocalError(
            "node.state_dir",
            got=f"{state_dir}, where no agent has kept anything",
            expected="the state directory of an agent that ran: is this its configuration file?",
        )
    disk = Disk(state_dir)
    try:
        decision = decide(disk.load())
        _store(disk, decision.records)
    finally:
        disk.close()
    return decision


def _store(disk: Disk, records: tuple[StoredRecord, ...]) -> None:
    answers: list[Stored | StoreFailed] = []
    disk.store(Store(1, records, sync=True), answers.append)
    disk.flush(PATIENCE)
    if not answers or isinstance(answers[0], StoreFailed):
        reason = answers[0].reason if answers and isinstance(answers[0], StoreFailed) else f"no answer in {PATIENCE} s"
        raise LocalError(
            "node.state_dir",
            got=f"a disk that did not take the change: {reason}",
            expected="a disk with free space that works; nothing was changed, so this may be done again",
        )
