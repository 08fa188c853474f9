"""Told: the text of a failure stands once in what a reader has before him, and where it would stand again is said so.

A node's part, the run's reason and what a revert left all quote the same failure.  Two texts are one when they read the same
`in_short`; what has more to it than that is another one, until it was told whole.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from dislocate.core.words import in_short

ABOVE = "as told above"
FAILED = ("failed", "revert failed")
WORTH_IT = 2 * len(ABOVE)  # characters: to read a shorter text twice is less than to look for it


class Told:
    """What was told of one run, from its first line to its last."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._reasons: list[str] = []  # a run may name a failure before its node's part is known here

    def reason(self, words: str, parts: Iterable[dict[str, Any]]) -> str:
        """Why a run is as it is: `words`, with the failures of nodes' `parts` only where they were not told yet."""
        words = self.once(words, parts)
        self._reasons.append(words)
        return words

    def once(self, words: str, parts: Iterable[dict[str, Any]]) -> str:
        """The same of what became of a node."""
        for text in dict.fromkeys(text for part in parts for text in _failures(part)):
            before, found, after = words.partition(text)
            if found:
                shown = ABOVE if self._knows(text) else text
                words = before + shown + after.replace(text, ABOVE)
                self._texts |= {_core(text): None, in_short(text): None}
        return words

    def _knows(self, text: str) -> bool:
        core = _core(text)
        return core in self._texts or any(core in words for words in self._reasons)


def is_more_than_shown(text: str) -> bool:
    """Whether `in_short` leaves something out."""
    lines = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    return " ... ".join(lines) != in_short(text)


def _core(text: str) -> str:
    """What there is to be told of it."""
    return text if is_more_than_shown(text) else in_short(text)


def _failures(part: dict[str, Any]) -> Iterator[str]:
    """Why it failed, now and before it was taken back, in all ways to say it; what a step said before what is said of it, so
    that the name of the resource stays in sight."""
    for one in (part, part["applied"]):
        if one is None or one["state"] not in FAILED:
            continue
        said = [step["words"] for step in one["steps"] if step["result"] == "failed"]
        for text in (*said, one["words"]):
            for shown in (text, in_short(text)):
                if len(shown) >= WORTH_IT:
                    yield shown
