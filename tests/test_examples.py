"""The examples of docs/examples run as they stand."""

import shutil
from pathlib import Path

import nbformat
import pytest

from harness import registry
from harness.testing import check_method

EXAMPLES = Path(__file__).parent.parent / "docs/examples"


@pytest.mark.slow
def test_the_quickstart_notebook_runs(tmp_path):
    for name in ("quickstart.ipynb", "own_method.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    notebook = nbformat.read(tmp_path / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    # A cell that runs has two outputs: the progress, rewritten in its place, and the frame. Nothing stands in red.
    kinds = [[out["output_type"] for out in cell.outputs] for cell in notebook.cells if "harness.run(" in cell.source]
    assert kinds == [["display_data", "execute_result"]] * 2
    texts = [
        "".join(str(out.get("data", {}).get("text/plain", "")) for out in cell.get("outputs", ()))
        for cell in notebook.cells
    ]
    shown = "\n".join(texts)
    assert "untouched" in shown and "moving" in shown and "not distinguishable" in shown and "equals 6" in shown


def test_the_committed_notebook_holds_no_outputs():
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_the_example_method_conforms():
    check_method(registry.find(registry.METHODS, str(EXAMPLES / "own_method.py")))
