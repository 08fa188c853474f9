"""Scaling as part of a node: what the leader decides, what the log makes of it, what each agent carries out."""
