"""Consensus: one log, the same on every server, that loses nothing it has acknowledged."""
