"""Clients of the replicated store in a scenario: what they ask (`plan`), how they go about it (`scripts`), and what a world
does for them (`clients`)."""
