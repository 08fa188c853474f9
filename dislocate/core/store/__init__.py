"""The store: what the log is applied to; and how any agent asks it."""
