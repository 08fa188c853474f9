"""Balancing: which data center a caller's request goes to, which instance there, and how often it is tried again.

    flows, gathering, messages, part     the share of each data center: decided by relays, copied by everybody
    endpoints, policies                  which instances may be used; how an operator wants it
    picker and what it is made of        one caller's choice

Imports nothing by itself: the wire knows `messages`, and clients take the picker without the rest.
"""
