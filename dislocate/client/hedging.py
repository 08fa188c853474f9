"""Hedging: a second attempt where the first takes long, and whichever is good first counts (Dean and Barroso, "The tail at
scale", 2013).

Each attempt has a thread (a greenlet, where threads are).  The one that loses is not interrupted: the service does its work
anyway, and how long it took is worth knowing.
"""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def hedged(first: Callable[[], T], second: Callable[[], T | None], after: float, is_good: Callable[[T], bool]) -> T:
    """What `first` gives, or after `after` seconds without it `second`, if that is good and comes first.

    `second` may give None: it was not made.  Where neither is good, what `first` gave or raised."""
    ended: SimpleQueue[tuple[int, T | None, BaseException | None]] = SimpleQueue()
    _begin(0, first, ended)
    try:
        return _given(ended.get(timeout=max(0.0, after)))
    except Empty:
        _begin(1, second, ended)
    winner = ended.get()
    if winner[1] is not None and is_good(winner[1]):
        return winner[1]
    other = ended.get()
    if other[1] is not None and is_good(other[1]):
        return other[1]
    return _given(min(winner, other, key=lambda one: one[0]))


def _begin(
    number: int,
    attempt: Callable[[], T | None],
    ended: "SimpleQueue[tuple[int, T | None, BaseException | None]]",
) -> None:
    def run() -> None:
        result, failure = None, Exception("the attempt was cut off")
        try:
            result = attempt()
        except Exception as error:  # noqa: BLE001 - handed over to whoever waits
            failure = error
        finally:  # a killed greenlet too: somebody waits
            ended.put((number, result, failure if result is None else None))

    Thread(target=run, name="dislocate-hedge", daemon=True).start()


def _given(end: "tuple[int, T | None, BaseException | None]") -> T:
    _, result, error = end
    if error is not None:
        raise error
    assert result is not None
    return result
