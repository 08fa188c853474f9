"""What others ship, written from their documentation to be compared with; each file says what it was read from.

They are given the same knowledge at the same time as ours: health after `plan.detection`, their own callers' calls.  A
figure of theirs is of this rule in this engine and not of their product.
"""
