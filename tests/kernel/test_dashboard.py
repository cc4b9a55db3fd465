"""Dashboards in a real kernel: shown often, reloaded, closed; nothing is left over."""

from __future__ import annotations

import pytest
from helpers.eventually import eventually
from helpers.real_kernel import Kernel

NUM_WIDGETS = "len(__import__('ipywidgets').Widget.widgets)"
THREADS = "[t.name for t in __import__('threading').enumerate() if t.name.startswith('tfserve-dashboard')]"
HOOKS = (
    "sum('tfserve_nb.notebook.cells' in str(getattr(f, '__module__', '')) for f in ip.events.callbacks['pre_run_cell'])"
)


@pytest.fixture
def serving_kernel(shared_kernel: Kernel) -> Kernel:
    """The kernel of all these tests, which serves the model `double`; what earlier tests showed is closed."""
    shared_kernel.check("%reload_ext tfserve_nb")
    shared_kernel.check("%%deploy model --name double --out d\nmodel = make(2.0)")
    return shared_kernel


def test_twenty_times_shown_is_one_tree_and_one_thread(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check("ip = get_ipython()\nboard = ip.run_line_magic('dashboard', 'double')\ndisplay(board)")
    before = kernel.value(NUM_WIDGETS)

    kernel.check("for _ in range(20):\n    display(ip.run_line_magic('dashboard', 'double'))")
    kernel.check("%dashboard double")

    assert kernel.value(NUM_WIDGETS) == before
    assert kernel.value(THREADS) == ["tfserve-dashboard"]
    assert kernel.value(HOOKS) == 1


def test_reloading_leaves_no_ghost(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check("ip = get_ipython()\nold = ip.run_line_magic('dashboard', 'double')\ndisplay(old)")

    kernel.check("%reload_ext tfserve_nb")

    assert kernel.value(THREADS) == []
    assert kernel.value(HOOKS) == 0
    kernel.check("%serving --resume")
    kernel.check("new = ip.run_line_magic('dashboard', 'double')\ndisplay(new)")
    assert kernel.value("new is not old") is True
    assert kernel.value(THREADS) == ["tfserve-dashboard"]


def test_a_model_that_is_undeployed_is_told_and_its_dashboard_comes_back_with_it(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check("board = get_ipython().run_line_magic('dashboard', 'double')\ndisplay(board)")
    said = "board._status.value"

    kernel.check("%undeploy double")
    eventually(lambda: "double is not served here" in kernel.value(said))
    assert "what was shown last stays below" in kernel.value(said)
    assert "%serving --resume" in kernel.value(said)

    kernel.check("%deploy model --name double --out d")
    eventually(lambda: "not served" not in kernel.value(said))


def test_what_is_published_is_the_live_view_and_a_page_that_stays(serving_kernel: Kernel) -> None:
    kernel = serving_kernel
    kernel.check(
        "from IPython.utils.capture import capture_output\n"
        "with capture_output() as got:\n    display(get_ipython().run_line_magic('dashboard', 'double'))\n"
        "kinds = [sorted(one.data) for one in got.outputs]\n"
        "page = got.outputs[1].data['text/html']"
    )

    assert kernel.value("kinds") == [
        ["application/vnd.jupyter.widget-view+json", "text/plain"], ["text/html", "text/plain"],
    ]  # fmt: skip
    assert "tfs-still" in kernel.value("page")
