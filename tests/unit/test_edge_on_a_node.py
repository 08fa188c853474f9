"""The edge reads a real node through the same names as the fake one."""

from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from tests.support.api_client import ApiClient
from tests.support.fake_backend import SELF, FakeBackend


def test_the_api_answers_from_a_real_node():
    settings = Settings(node=SELF, nonce=1, gossip="127.0.0.1:49701", links="127.0.0.1:49702")
    backend = FakeBackend()
    backend.node = Node(settings, Streams("edge/fra/a1"), Recovered())
    backend.node.start(backend.clock)
    api = ApiClient(backend)
    assert api.get("/api/health")["node"] == "fra/a1"
    assert api.get("/api/services") == {"services": []}
    assert api.problem("GET", "/api/services/shop.web").status == 404
    assert api.problem("GET", "/api/history/shop.web").status == 404
    for path in ("/api/members", "/api/datacenters", "/api/metrics", "/"):
        assert api.ask("GET", path).status_code == 200
