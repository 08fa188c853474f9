"""Peers under measurement are processes in a directory of their own, and both are gone when they are left."""

import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self


class Opened(ABC):
    """`found` is called when it is entered, `end` when it is left, also if `found` fails."""

    def __init__(self, prefix: str = "dislocate-bench-") -> None:
        self.opened = ExitStack()  # what is closed at the end, the directory last
        self.directory = Path(self.opened.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))

    def __enter__(self) -> Self:
        try:
            self.found()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @abstractmethod
    def found(self) -> None:
        """Start everything; returns when it is ready to be measured."""

    @abstractmethod
    def end(self) -> None:
        """End what was started."""

    def _leave(self) -> None:
        try:
            self.end()
        finally:
            self.opened.close()
