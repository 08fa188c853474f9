"""A server that is far behind catches up by one snapshot, also while writing goes on."""

from dislocate.core.consensus.messages import SnapshotChunk
from dislocate.core.store import keptlog
from sim.run import Run
from sim.scenario import parse_scenario

# lon/a1 misses more than the log keeps, then has to take 4 MB over a way on which that lasts some seconds; in that time the
# others write more than the log keeps again and again.
STORY = """
title = "A long snapshot under writes"
why = "The log has to go on from where a snapshot on its way ends, or there is one after the other."
duration = "50s"
servers = ["fra/a1", "wdc/a1", "lon/a1"]

[datacenters.fra]
nodes = 2
[datacenters.wdc]
nodes = 1
[datacenters.lon]
nodes = 1

[[workloads]]
name = "kv"
clients = 5
rate = 6.0
at = "fra"
keys = 100
size = 48000
mix = { put = 1 }
until = "42s"

[[at]]
time = "10s"
do = "lead"
target = "fra/a1"
[[at]]
time = "12s"
do = "kill"
target = "lon/a1"
for = "12s"
[[at]]
time = "23s"
do = "slow"
from = "lon"
to = "*"
factor = 60.0

[[expect]]
kind = "eventually"
claim = "store_writable"
of = "fra/a2"
after = "45s"
within = "5s"
"""


def test_a_long_snapshot_under_writes_is_not_followed_by_another_one(monkeypatch):
    monkeypatch.setattr(keptlog, "LOG_KEPT", 40)
    monkeypatch.setattr(keptlog, "LOG_SLACK", 20)
    run = Run(parse_scenario(STORY), 1)
    begun = {}

    def sent(_process, message):
        if isinstance(message.body, SnapshotChunk):
            begun.setdefault((message.to.path, message.body.index), run.world.now / 1e9)

    run.world.wiretap.on_sent.append(sent)
    report = run.to_the_end()
    assert report.holds, report.as_text("this")
    assert len(begun) == 1, begun  # three, and no end, when the log did not wait for it
    servers = [run.world.machines[path].process.node.store for path in ("fra/a1", "lon/a1")]
    assert abs(servers[0].index - servers[1].index) < 50
