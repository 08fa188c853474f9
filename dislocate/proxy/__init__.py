"""`dislocate proxy`: balanced TCP for programs that cannot pick by themselves.

In a process of its own, so that neither the agent's work nor an agent that ends is felt by a stream.  Knows the client
library and the core, nothing of the agent.
"""
