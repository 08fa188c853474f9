"""Real callers of a live scenario: processes that call services as any application does, and say what they saw."""
