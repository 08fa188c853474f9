"""Who is there: SWIM with Lifeguard and a refusal path in a data center, relays and phi accrual between them."""
