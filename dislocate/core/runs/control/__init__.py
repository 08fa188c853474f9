"""Control: what the leader decides about runs under way, from the log, live health and its own clocks."""
