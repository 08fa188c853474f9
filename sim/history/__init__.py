"""Histories of clients of the store, and whether an order explains them."""

from sim.history.commits import Commit, check_by_commits
from sim.history.operations import Action, History, Operation, Outcome, Seen, cas, delete, get, put
from sim.history.search import Finding, Verdict, check_linearizable

__all__ = [
    "Action",
    "Commit",
    "Finding",
    "History",
    "Operation",
    "Outcome",
    "Seen",
    "Verdict",
    "cas",
    "check_by_commits",
    "check_linearizable",
    "delete",
    "get",
    "put",
]
