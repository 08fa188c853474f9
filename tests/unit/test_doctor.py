"""What the doctor says of one host, without an agent that runs: how bad it is, and the mend."""

import shutil
from collections import namedtuple

import pytest

from dislocate.config import load_config
from dislocate.doctor.host import _state_dir
from dislocate.doctor.seeds import examine_seeds
from dislocate.findings import Level

Usage = namedtuple("Usage", "total used free")


def config(tmp_path, seeds):
    file = tmp_path / "agent.toml"
    state = tmp_path / "state"
    file.write_text(
        f'[node]\nname = "a1"\ndatacenter = "fra"\nbind = "127.0.0.1"\nstate_dir = "{state}"\nseeds = {seeds}\n'
        f'[security]\nsecret_file = "{tmp_path / "secret"}"\n'
    )
    return load_config(file)


@pytest.mark.parametrize(("free", "level"), [(1 << 40, Level.OK), (50 << 20, Level.WARN), (0, Level.FAIL)])
def test_a_full_disk_is_to_be_mended_and_a_narrow_one_is_worth_a_warning(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1 << 40, 0, free))
    (finding,) = _state_dir(config(tmp_path, []), 0)
    assert (finding.level, "MiB left" in finding.found) == (level, level is not Level.OK)


def test_the_first_agent_may_name_itself_alone(tmp_path):
    (finding,) = examine_seeds(config(tmp_path, '["127.0.0.1:49701"]'), None)
    assert (finding.level, finding.found) == (Level.OK, "only itself: fine for the first agent, if all others name it")
    (finding,) = examine_seeds(config(tmp_path, "[]"), None)
    assert (finding.level, finding.found) == (Level.WARN, "none: this agent waits to be found")
