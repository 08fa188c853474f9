"""The protocol, read aloud: each file is a story and what its agents said, kept word for word."""

import os
from pathlib import Path

import pytest

from tests.support.transcript import DASHES, tell

HERE = Path(__file__).parent
FILES = sorted(path for path in HERE.glob("*.txt") if not path.stem.startswith("raft-"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_agents_say_what_they_said(path):
    story, _, kept = path.read_text().partition(f"\n{DASHES}\n")
    said = tell(story)
    if os.environ.get("DISLOCATE_REWRITE"):
        path.write_text(f"{story}\n{DASHES}\n{said}")
    assert said == kept


def test_there_are_transcripts_and_they_say_something():
    assert len(FILES) >= 5
    assert all(len(path.read_text().partition(f"\n{DASHES}\n")[2].splitlines()) >= 3 for path in FILES)
