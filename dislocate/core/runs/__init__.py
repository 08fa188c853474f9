"""Config runs, decided: who changes when (the leader), what this node does (every agent), and what the log makes of both."""
