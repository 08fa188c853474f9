"""Each body runs once in each world."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath

import pytest

from tests.conformance.fabric import Fabric
from tests.conformance.real import RealFabric
from tests.conformance.simulated import SimulatedFabric

FABRICS: dict[str, Callable[[FilePath], Fabric]] = {"real": RealFabric, "simulated": SimulatedFabric}


@pytest.fixture(params=list(FABRICS))
def fabric(request, tmp_path) -> Iterator[Fabric]:
    made = FABRICS[request.param](tmp_path)
    yield made
    made.stop()
