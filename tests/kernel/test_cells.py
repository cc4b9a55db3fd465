"""What running cells does to a kernel that serves."""

from __future__ import annotations

import pytest
from helpers.real_kernel import READY_S, Kernel

ROW = [[1.0, 2.0]]


def test_loading_the_extension_is_quick_and_imports_no_tensorflow(kernel: Kernel) -> None:
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=READY_S)

    took = kernel.check(
        "import sys, time; started_s = time.perf_counter()\n"
        "%load_ext tfserve_nb\n"
        "print(f'{1e3 * (time.perf_counter() - started_s):.0f} ms')"
    )

    print("%load_ext took", took)
    assert kernel.value("[name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules]") == []


def test_a_deployed_model_answers_another_process(shared_kernel: Kernel, name: str) -> None:
    assert shared_kernel.ask(ROW) == [[6.0]]


def test_deploying_again_keeps_url_and_token(shared_kernel: Kernel, name: str) -> None:
    before = shared_kernel.value("[d.rest_url, d.token, d.version]")

    shared_kernel.check(f"%%deploy model --name {name} --out d\nmodel = make(3.0)")

    url, token, version = shared_kernel.value("[d.rest_url, d.token, d.version]")
    assert ([url, token], version) == (before[:2], before[2] + 1)
    assert shared_kernel.ask(ROW) == [[9.0]]


def test_a_failing_body_is_an_error_and_leaves_the_served_version_alone(shared_kernel: Kernel, name: str) -> None:
    result = shared_kernel.run(f"%%deploy model --name {name} --out d\nmodel = make(5.0)\nraise ValueError('oh no')")

    assert (result.status, result.ename) == ("error", "ValueError")
    assert len(result.errors) == 1
    assert "oh no" in result.errors[0]
    assert shared_kernel.ask(ROW) == [[6.0]]
    assert shared_kernel.value("list(d.versions)") == [1]


def test_functions_of_the_body_see_each_other(shared_kernel: Kernel, name: str) -> None:
    printed = shared_kernel.check(
        f"%%deploy model --name {name} --out d\n"
        "def inner(): return 4.0\n"
        "def outer(): return make(inner())\n"
        "model = outer()\n"
        "print('built')"
    )

    assert "built" in printed
    assert shared_kernel.check("print(outer().name.split('_')[0])").strip() == "sequential"
    assert shared_kernel.ask(ROW) == [[12.0]]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("%deploy model --no-such-option 3", "--no-such-option"),
        ("%deploy model --max-batch-size many", "many"),
        ("%deploy", "model"),
        ("%deploy model --keep 0", "keep"),
        ("%deploy no_such_variable", "no_such_variable"),
        ("%deploy model --name 'unclosed", "quotation"),
        ("%promote double", "version"),
    ],
)
def test_wrong_options_are_one_line_usage_errors(shared_kernel: Kernel, line: str, named: str) -> None:
    result = shared_kernel.run(line)

    assert (result.status, result.ename) == ("error", "UsageError")
    assert named in result.evalue.lower()
    assert "Traceback" not in result.stderr


def test_an_error_of_ours_is_an_output_without_a_traceback(shared_kernel: Kernel, name: str) -> None:
    result = shared_kernel.run(f"%promote {name} 99")

    assert result.status == "error"
    assert "99" in result.evalue
    assert len(result.errors) == 1
    assert "Traceback" not in result.errors[0]


@pytest.mark.parametrize("where", ["body", "export"])
def test_an_interrupt_while_deploying_leaves_the_served_version_alone(
    shared_kernel: Kernel, name: str, where: str
) -> None:
    shared_kernel.check(
        """
import tensorflow as tf

def hang():
    print("hanging", flush=True)
    while True:
        pass

class Hanging(tf.Module):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def __call__(self, x):
        hang()
        return x
"""
    )
    body = "hang()" if where == "body" else "model = Hanging()"

    def interrupt(text: str) -> None:
        if "hanging" in text:
            shared_kernel.manager.interrupt_kernel()

    result = shared_kernel.run(f"%%deploy model --name {name} --out d\n{body}", on_stdout=interrupt)

    assert (result.status, result.ename) == ("error", "KeyboardInterrupt")
    assert shared_kernel.ask(ROW) == [[6.0]]
    assert shared_kernel.value("list(d.versions)") == [1]
    folders = [path.name for path in (shared_kernel.folder / "tfserve_models" / name).iterdir() if path.is_dir()]
    assert folders == ["1"]


def test_reloading_the_extension_stops_the_server_and_deploys_again(shared_kernel: Kernel, name: str) -> None:
    shared_kernel.check("%reload_ext tfserve_nb")

    shared_kernel.check("import threading")
    threads = shared_kernel.value("[thread.name for thread in threading.enumerate()]")
    assert [thread for thread in threads if thread.startswith("tfserve-")] == []
    shared_kernel.check(f"%%deploy model --name {name} --out d\nmodel = make(7.0)")
    assert shared_kernel.ask(ROW) == [[21.0]]


def test_unloading_takes_the_magics_away_and_loading_brings_them_back(kernel: Kernel) -> None:
    kernel.check("%unload_ext tfserve_nb")
    gone = kernel.run("%serving")
    kernel.check("%load_ext tfserve_nb")

    assert "not found" in gone.evalue + gone.stderr
    kernel.check("%serving")


@pytest.mark.parametrize(
    "body",
    [
        "%%deploy model --name {name} --out d\ntoken = 'hunter2'\nmodel = make(4.0)",
        "import tfserve_nb\nd = tfserve_nb.deploy(make(4.0), '{name}')",
        (
            "import tfserve_nb, numpy as np\nmodel.compile('sgd', 'mse')\nwatch = tfserve_nb.DeployCallback('{name}')\n"
            "model.fit(np.ones((1, 2)), np.ones((1, 1)), verbose=0, callbacks=[watch])"
        ),
    ],
    ids=["cell_magic", "function", "callback"],
)
def test_a_version_knows_its_cell_by_text_number_and_id(shared_kernel: Kernel, name: str, body: str) -> None:
    session, cell = shared_kernel.client.session, body.format(name=name)
    content = {"code": cell, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    message = session.msg("execute_request", content, metadata={"cellId": "cell-of-mine"})
    shared_kernel.client.shell_channel.send(message)
    while (reply := shared_kernel.client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != message[
        "msg_id"
    ]:
        pass

    assert reply["content"]["status"] == "ok"
    told = "d.provenance(2).code"
    assert shared_kernel.value(f"[{told}.source, {told}.cell_id, {told}.execution_count]") == [
        cell.replace("hunter2", "[redacted]"),
        "cell-of-mine",
        reply["content"]["execution_count"],
    ]
