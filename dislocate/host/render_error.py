"""Why a template cannot be rendered, and how large it may become."""

from dislocate.core.errors import DislocateError

RENDERED = 1024 * 1024  # characters: four times what a key of the store may hold


class RenderError(DislocateError):
    """A template cannot be rendered.  Nothing was changed."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        return self.words


def too_large() -> RenderError:
    return RenderError(f"it becomes larger than {RENDERED // 1024} KiB")
