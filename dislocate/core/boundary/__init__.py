"""The vocabulary of the core's door: inputs, effects, requests, events, settings, views."""
