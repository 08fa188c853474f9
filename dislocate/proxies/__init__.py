"""For proxies that others wrote: what a HAProxy or an nginx should do, from an agent's answer about flows.

pool                  which servers, in which state, with which weight: pure
slots                 what to tell a HAProxy so that its servers are that pool: pure
runtime, driver       its runtime socket; keeping it so
agent_check           its agent-check protocol
"""
