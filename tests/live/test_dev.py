"""`dislocate dev` as a newcomer types it: what it prints can be typed."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support.live import PATIENCE, command

pytestmark = pytest.mark.live


def test_dev_prints_lines_that_work_as_they_stand_and_ctrl_c_ends_it_all(tmp_path, running):
    dev = running("dev", "--dcs", "2", "--nodes", "2", "--dir", str(tmp_path / "a fleet"))
    try:
        lines = [line.strip() for line in dev.read_until("Ctrl-C ends it all")]
        environment = dict(os.environ)
        exported = next(line for line in lines if line.startswith("export DISLOCATE_AGENT="))
        environment["DISLOCATE_AGENT"] = shlex.split(exported, comments=True)[1].partition("=")[2]
        program = f"{shlex.quote(sys.executable)} -m dislocate"
        tried = [line for line in lines if re.match(r"(dislocate|curl|dig|cat) ", line)]
        assert len(tried) >= 18
        for line in tried:
            line = re.sub(r"^dislocate", program, line)
            if " watch " in line:
                line += " --once"
            done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert done.stdout.strip(), f"{line} printed nothing"
        for line in ("dev do kil fra/a1", "dev do kill fra/a9", "dev do slow fra"):
            done = command(*line.split(), "--dir", str(tmp_path / "a fleet"))
            assert (done.returncode, "Traceback" in done.stderr, bool(done.stderr)) == (1, False, True), done.stderr
    finally:
        assert dev.interrupt() == 0
    assert command("dev", "do", "cut", "fra", "--dir", str(tmp_path / "a fleet")).returncode == 3
