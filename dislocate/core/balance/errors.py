"""Why a call gets no instance: each of these leaves nothing in flight, and what was asked for counts as demand."""

from dislocate.core.errors import DislocateError


class NoEndpoint(DislocateError):
    """Nobody is known that this call may go to, not even from before."""

    def __init__(self, service: str, words: str) -> None:
        super().__init__(service, words)
        self.service = service
        self.words = words

    def __str__(self) -> str:
        return f"{self.service}: {self.words}"


class Throttled(DislocateError):
    """The service accepts so little of what this caller sends that the rest stays here (client throttle)."""

    def __init__(self, service: str, part: float) -> None:
        super().__init__(service, part)
        self.service = service
        self.part = part  # of all calls that are kept from it at present

    def __str__(self) -> str:
        return (
            f"{self.service}: throttled, since it accepts too little: {self.part:.0%} of the calls are kept from it; "
            f"it ends by itself as calls succeed again"
        )


class RetriesSpent(DislocateError):
    """This caller has tried again as often as its calls of the last ten seconds allow; no token was taken."""

    def __init__(self, service: str, retries: int, allowed: float) -> None:
        super().__init__(service, retries, allowed)
        self.service = service
        self.retries = retries  # in the last ten seconds
        self.allowed = allowed

    def __str__(self) -> str:
        return (
            f"{self.service}: no retry is left: {self.retries} in ten seconds, {self.allowed:.0f} are allowed "
            f"(policy retries.ratio and retries.per_second)"
        )
