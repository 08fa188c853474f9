"""Every notebook opens, runs top to bottom, and was saved with its pictures."""

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TIMEOUT = 300  # seconds for a start or a cell, on a machine that is busy with other tests: a guard, not a figure


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(ROOT)}}
    # Sockets in the file system, with short names: a port may be another's between the moment when it is found free and the
    # start of the kernel.
    with tempfile.TemporaryDirectory() as short:
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{short}/k"}})
        patience = {"timeout": TIMEOUT, "startup_timeout": TIMEOUT}
        NotebookClient(notebook, kernel_name="python3", resources=where, config=sockets, **patience).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_saved_with_its_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs(notebook))
    assert path.stat().st_size < 500_000


def test_there_is_a_notebook():
    assert NOTEBOOKS
