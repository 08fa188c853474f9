"""Why a call of the client library did not succeed, where the picker is not to blame."""

from collections.abc import Sequence

from dislocate.core.errors import DislocateError


class CallFailed(DislocateError):
    """Every attempt that this call may have failed.  Whether anything was changed is the service's to know, save where
    each attempt says that no connection was made.  The last attempt's own error is the `__cause__`."""

    def __init__(self, service: str, attempts: Sequence[str], why: str) -> None:
        super().__init__(service, tuple(attempts), why)
        self.service = service
        self.attempts = tuple(attempts)  # 'fra/a1/web-1: connection refused', in their order
        self.why = why  # no further attempt was made

    def __str__(self) -> str:
        tried = "; ".join(self.attempts) or "nothing was tried"
        return f"{self.service}: {tried} ({self.why})"


class DeadlineExceeded(CallFailed, TimeoutError):
    """The time of the call was over before an attempt succeeded; the last one may still be carried out."""
