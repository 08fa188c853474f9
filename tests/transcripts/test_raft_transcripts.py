"""Raft, read aloud: each file is a story of a few servers and what they said, kept word for word."""

import os
from pathlib import Path

import pytest

from tests.support.raft_transcript import tell
from tests.support.transcript import DASHES

FILES = sorted(Path(__file__).parent.glob("raft-*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_servers_say_what_they_said(path):
    story, _, kept = path.read_text().partition(f"\n{DASHES}\n")
    said = tell(story)
    if os.environ.get("DISLOCATE_REWRITE"):
        path.write_text(f"{story}\n{DASHES}\n{said}")
    assert said == kept


def test_there_are_transcripts_of_raft():
    assert len(FILES) >= 6
