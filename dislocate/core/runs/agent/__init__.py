"""What each agent does for runs: its own part with a journal, and what it is asked to look at or run."""
