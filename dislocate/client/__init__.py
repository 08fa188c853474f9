"""For programs that talk to an agent.  Knows the HTTP API and nothing else of the agent."""
