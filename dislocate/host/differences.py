"""Differences: what would change, for people, without secrets.

A file that holds a secret, or once did, is shown with marks: the new side is rendered with them, so nothing can shine
through, whatever a template makes of a secret.  Of the old side only those lines are shown that stand on the new side too;
any other may hold a secret of before, which is known to nobody here, and is hidden.
"""

import difflib

from dislocate.host.secrets import Keys

SHOWN = 32 * 1024  # bytes
_LINES = 20_000  # of both sides together; comparing more takes seconds
_CUT = "... the rest is not shown\n"


def difference(path: str, old: bytes | None, new: str) -> str:
    """Unified; `old` None: there is no file."""
    if old is None:
        return unified(path, None, new)
    try:
        text = old.decode()
    except UnicodeDecodeError:
        return f"binary file {path}: {len(old)} bytes become {len(new.encode())}\n"
    return unified(path, text, new)


def secretive_difference(path: str, old: bytes | None, new: str, shown: str, keys: Keys) -> str:
    """The same where `new` has secrets and `shown` has marks in their place."""
    if old is None:
        return unified(path, None, shown)
    lines, shown_lines = new.splitlines(), shown.splitlines()
    known = dict(zip(lines, shown_lines, strict=True)) if len(lines) == len(shown_lines) else {}
    for line in shown_lines:
        known.setdefault(line, line)
    old_lines = [known.get(line) or _hidden(line, keys) for line in old.decode(errors="replace").splitlines()]
    return unified(path, "".join(f"{line}\n" for line in old_lines), "".join(f"{line}\n" for line in shown_lines))


def unified(path: str, old: str | None, new: str | None) -> str:
    """Without times, so that equal differences of two hosts are equal."""
    before, after = (old or "").splitlines(keepends=True), (new or "").splitlines(keepends=True)
    if len(before) + len(after) > _LINES:
        return f"{path}: {len(before)} lines become {len(after)}, too many to be compared\n"
    lines = difflib.unified_diff(
        before, after, "/dev/null" if old is None else path, "/dev/null" if new is None else path
    )
    return cut("".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines))


def cut(text: str) -> str:
    """At most `SHOWN` bytes of it, whole lines."""
    data = text.encode()
    if len(data) <= SHOWN:
        return text
    kept = data[: SHOWN - len(_CUT)].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] + _CUT


def _hidden(line: str, keys: Keys) -> str:
    if not line.strip():
        return line
    return f"<hidden, it may hold a secret #{keys.mark('line', line)}>"
