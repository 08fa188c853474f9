"""What the doctor says of [store] servers, from the configuration alone."""

import pytest

from dislocate.config import parse_config
from dislocate.doctor.configuration import examine_servers
from dislocate.findings import Level

HEAD = '[security]\nsecret_file = "secret"\n[node]\ndatacenter = "fra"\n'


def findings(name, servers):
    listed = ", ".join(f'"{server}"' for server in servers)
    return list(examine_servers(parse_config(f'{HEAD}name = "{name}"\n[store]\nservers = [{listed}]\n')))


def test_without_servers_there_is_nothing_to_say():
    assert findings("a1", []) == []


@pytest.mark.parametrize(
    ("name", "servers", "level", "words"),
    [
        ("a1", ["fra/a1", "wdc/b1", "lon/c1"], Level.OK, "this agent is one of 3"),
        ("a1", ["wdc/b1"], Level.OK, "this agent is none of wdc/b1"),
        ("web-7", ["fra/a1", "wdc/web-7", "lon/c1"], Level.OK, "none of fra/a1, wdc/web-7, lon/c1"),
        ("store-1", ["fra/stores-1", "wdc/b1", "lon/c1"], Level.OK, "did you mean 'fra/stores-1'?"),
        ("a01", ["fra/a1", "wdc/b1", "lon/c1"], Level.WARN, "fra/a1 is named, but this agent is fra/a01"),
        ("a-1", ["fra/a1", "wdc/b1", "lon/c1"], Level.WARN, "fra/a1 is named, but this agent is fra/a-1"),
        ("a1", ["fra/a1", "fra/a1", "lon/c1"], Level.FAIL, "fra/a1 is named twice"),
        ("a1", ["fra/a1", "wdc/b1", "lon/c1", "lon/c2"], Level.WARN, "4 servers bear the loss of 1, as many as 3 do"),
        ("a1", ["fra/a1", "wdc/b1"], Level.WARN, "2 servers bear the loss of 0"),
    ],
)
def test_the_list_is_looked_at(name, servers, level, words):
    found = findings(name, servers)[0]
    assert found.level is level
    assert words in found.found
    assert bool(found.mend) == (level is not Level.OK)
