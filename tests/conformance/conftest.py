"""Each body runs once in each world."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath

import pytest

from tests.conformance.fabric import Fabric
from tests.conformance.real import RealFabric

# The simulated world's `SimFabric` takes its place here.
FABRICS: dict[str, Callable[[FilePath], Fabric]] = {"real": RealFabric}


@pytest.fixture(params=list(FABRICS))
def fabric(request, tmp_path) -> Iterator[Fabric]:
    made = FABRICS[request.param](tmp_path)
    marker = request.node.get_closest_marker("needs")
    if marker is not None and not made.carries.issuperset(marker.args):
        pytest.skip(f"the {request.param} world does not carry {marker.args} yet")
    yield made
    made.stop()
