"""Requests in virtual time: instances with workers and queues, callers that pick, and the policies that are compared.

`engine` runs one story over one policy, request by request; `ours` is what ships, `peers` what others ship, written from
their documentation, and `oracle` sees every queue.  `station` and `chances` serve the simulated fleet too.
"""
