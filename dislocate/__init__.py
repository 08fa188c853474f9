"""Dislocate: where is it, which one should I use, change it safely; across data centers."""

__version__ = "0.1.0"
