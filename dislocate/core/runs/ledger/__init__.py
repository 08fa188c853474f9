"""The ledger: what the log makes of runs.  Applied by every server alike; an illegal transition is refused here."""
