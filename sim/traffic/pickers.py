"""Callers that choose with the real `core.balance.picker`: in the engine and in the simulated fleet alike."""

from collections.abc import Mapping

from dislocate.core.balance.errors import NoEndpoint, RetriesSpent, Throttled
from dislocate.core.balance.picker import Outcome, Picked, Picker
from dislocate.core.errors import DislocateError
from sim.traffic.balancer import Call, Ended, Place

OUTCOMES = {
    Ended.OK: Outcome.OK,
    Ended.FAILED: Outcome.FAILED,
    Ended.TIMED_OUT: Outcome.TIMED_OUT,
    Ended.REFUSED: Outcome.REFUSED,
}


class Pickers:
    """One picker a caller; a call that none has an instance for has failed."""

    def __init__(self, pickers: Mapping[int, Picker], places: Mapping[str, Place]) -> None:
        """`pickers` by number of the caller, `places` by the key that an endpoint has."""
        self._pickers = pickers
        self._places = places
        self.refusals: dict[str, int] = {}  # why calls got nobody, by class of the error

    def choose(self, call: Call, now: int, *, retry: bool) -> Place | None:
        picker = self._pickers[call.caller.at]
        exclude = tuple([place.key for place in call.tried])
        try:
            picked = picker.pick(now, key=call.key, exclude=exclude, retry=retry)
        except (NoEndpoint, Throttled, RetriesSpent) as error:
            self.refused(call, error)
            return None
        call.token = picked
        return self._places[picked.endpoint.key]

    def refused(self, _call: Call, error: DislocateError) -> None:
        """The picker named nobody."""
        name = type(error).__name__
        self.refusals[name] = self.refusals.get(name, 0) + 1

    def done(self, call: Call, now: int, ended: Ended) -> None:
        picked: Picked = call.token
        self._pickers[call.caller.at].done(picked, now, OUTCOMES[ended])
