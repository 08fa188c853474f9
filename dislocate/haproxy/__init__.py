"""A HAProxy kept as the flows of its services say (which servers, states and weights: `client.pool`).

slots                 what to tell it so that its servers are that pool: pure
runtime, driver       its runtime socket; keeping it so
agent_check           its agent-check protocol
"""
