"""How much is tried: reduced counts for `make test`, full ones for `make prove` (DISLOCATE_PROFILE=full).

Derandomized in `make test`, so that it fails for a change and not for the day; `make prove` draws anew.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

FULL = os.environ.get("DISLOCATE_PROFILE") == "full"

settings.register_profile(
    "reduced", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("full", max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("full" if FULL else "reduced")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test marked `full` runs only where full counts are asked for."""
    if FULL:
        return
    # By its marker: the keywords of a test hold the names of all directories above it too.
    left_out = [item for item in items if item.get_closest_marker("full") is not None]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.get_closest_marker("full") is None]
