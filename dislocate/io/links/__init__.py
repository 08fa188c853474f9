"""Long-lived, authenticated ZeroMQ links between agents: `Links` is all that others need."""

from dislocate.io.links.links import Links
from dislocate.io.links.news import Shaper
from dislocate.io.links.sockets import Keys

__all__ = ["Keys", "Links", "Shaper"]
