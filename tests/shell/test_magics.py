"""The magics in a private shell: what works, and what wrong input gets."""

from __future__ import annotations

import re

import onnx
import pytest
import requests
from helpers.converting import convert_here
from helpers.eventually import eventually
from helpers.onnx_models import echo
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError

from tfserve_nb.api.deployment import Deployment
from tfserve_nb.api.servers import server_of
from tfserve_nb.errors import (
    ExportFailed,
    InvalidOption,
    ModelNotFound,
    ModelNotServable,
    VersionExists,
    VersionNotFound,
)
from tfserve_nb.reports.text import to_text
from tfserve_nb.serving.telemetry.observer import Observer
from tfserve_nb.serving.telemetry.records import Pair
from tfserve_nb.variants.report import report_of


class Pairs(Observer):
    """Keeps what two versions answered to the same request."""

    def __init__(self) -> None:
        self.found: list[Pair] = []

    def on_pair(self, pair: Pair) -> None:
        self.found.append(pair)


def post(handle: Deployment, rows: list[list[float]], path: str = "") -> requests.Response:
    """A predict call over HTTP."""
    headers = {"Authorization": f"Bearer {handle.token}"}
    return requests.post(f"{handle.rest_url}{path}:predict", json={"instances": rows}, headers=headers, timeout=10)


def test_deploy_line_magic_serves_a_variable_under_its_name(modeller) -> None:
    handle = modeller.run("d = %deploy model --quiet\nd")

    assert (handle.name, handle.version, handle.versions) == ("model", 1, (1,))
    assert post(handle, [[1, 2]]).json() == {"predictions": [[2.0, 4.0]]}
    assert handle.predict([[1, 2]]).tolist() == [[2.0, 4.0]]


def test_deploy_takes_the_path_of_a_file_also_beside_a_variable_of_that_name(modeller) -> None:
    onnx.save(echo("float32"), "model.onnx")
    onnx.save(echo("float32"), "other.name.onnx")

    handle = modeller.run("%deploy model.onnx")

    assert (handle.name, handle.engine) == ("model", "onnx")
    assert handle.predict([[1, 2]]).tolist() == [[1.0, 2.0]]
    assert modeller.run("%deploy ./other.name.onnx").name == "other.name"
    assert modeller.run("%deploy model.onnx --name small").name == "small"
    with pytest.raises(UsageError, match="MODEL 'none.onnx': there is no such file"):
        modeller.run("%deploy none.onnx")


def test_deploy_cell_magic_runs_the_body_in_the_users_namespace(modeller) -> None:
    modeller.run(
        "%%deploy --name net --out d --quiet\n"
        "def scale(): return inner()\n"
        "def inner(): return 3.0\n"
        "%precision 3\n"
        "net = make(scale())\n"
        "net"
    )

    assert modeller.user_ns["d"].predict([[1, 1]]).tolist() == [[3.0, 3.0]]
    assert modeller.user_ns["scale"]() == 3.0


def test_name_comes_from_the_last_expression(modeller) -> None:
    assert modeller.run("%%deploy\nnet = make(2.0)\nnet").name == "net"
    with pytest.raises(UsageError, match="needs a name"):
        modeller.run("%%deploy\nmake(2.0)")
    with pytest.raises(UsageError, match="ends without one"):
        modeller.run("%%deploy\nnet = make(2.0)")


def test_redeploy_reuses_server_and_handle_and_rollback_goes_back(modeller, capsys) -> None:
    first = modeller.run("%deploy model --name net -q --out d")
    url, token = modeller.user_ns["d"].rest_url, modeller.user_ns["d"].token
    assert first is None

    modeller.run("%%deploy better --name net --out e -q\nbetter = make(5.0)")
    handle = modeller.user_ns["e"]
    assert (handle.rest_url, handle.token, handle.version) == (url, token, 2)
    assert post(handle, [[1, 1]]).json() == {"predictions": [[5.0, 5.0]]}
    assert post(handle, [[1, 1]], "/versions/1").json() == {"predictions": [[2.0, 2.0]]}

    modeller.run("%rollback net")
    assert post(handle, [[1, 1]]).json() == {"predictions": [[2.0, 2.0]]}
    assert "net: version 1 answers now (before: 2), switched in" in capsys.readouterr().out
    modeller.run("%promote net 2")
    assert handle.version == 2
    modeller.run("%rollback net --to 1")
    assert handle.version == 1
    with pytest.raises(VersionNotFound, match="no earlier version"):
        modeller.run("%rollback net")


def test_failing_body_leaves_the_served_version_untouched(modeller) -> None:
    handle = modeller.run("%deploy model --name net")

    with pytest.raises(ZeroDivisionError):
        modeller.run("%%deploy model --name net\n1 / 0")
    with pytest.raises(SyntaxError):
        modeller.run("%%deploy model --name net\n1 +")

    assert (handle.version, handle.versions) == (1, (1,))


def test_top_level_await_is_explained(modeller) -> None:
    with pytest.raises(UsageError, match="await"):
        modeller.run("%%deploy model --name net\nimport asyncio\nawait asyncio.sleep(0)")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("%deploy", "needs a model"),
        ("%deploy mode", "there is no variable 'mode'; did you mean model"),
        ("%deploy model --nmae x", "unrecognized arguments: --nmae x; did you mean --name"),
        ("%deploy model other", "unrecognized arguments: other"),
        ("%deploy model --max-batch-size many", "invalid int value: 'many'"),
        ("%deploy model --max-batch-size 0", "max_batch_size=0 must be an integer of at least 1"),
        ("%deploy model --allowed-batch-sizes 1,8", "Last entry in allowed_batch_sizes must match max_batch_size"),
        ("%deploy model --optimize all", "argument --optimize: invalid choice: 'all'"),
        ("%deploy model --name a/b", "cannot name a model"),
        ("%deploy model --name 'a", "No closing quotation"),
        ("%deploy model --stage --canary 10", "exclude each other"),
        ("%deploy model --canary 120", "canary=120.0 must be a percentage"),
        ("%deploy model --keep 0", "keep=0 must be"),
        ("%deploy model --label 'a b'", "label 'a b' must be text without"),
        ("%deploy model --out 1x", "is no variable name"),
        ("%deploy model --port 99999", "port=99999 must be"),
        ("%deploy model --version -1", "version=-1 must be"),
        ("%deploy model --check nothing", "--check 'nothing': there is no variable"),
        ("%deploy model.nothing", "has no attribute 'nothing'"),
        ("%variants mode", "there is no variable 'mode'; did you mean model"),
        ("%variants model --optimize int4", "optimize='int4' must be one of"),
        ("%variants model --labels np", "labels are of the rows of check"),
        ("%variants model --check nothing", "--check 'nothing': there is no variable"),
        ("%variants model --version 2", "--version is of a served model, and model is none"),
        ("%promote net", "the following arguments are required: VERSION"),
        ("%promote net two", "invalid int value: 'two'"),
    ],
)
def test_wrong_options_are_usage_errors(modeller, line: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        modeller.run(line)

    assert type(caught.value) is UsageError
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", ["--optimize all", "--max-batch-size 0", "--stage --slo-p99-ms 5", "--out 1x"])
def test_wrong_options_are_found_before_the_cell_runs(modeller, options: str) -> None:
    with pytest.raises(UsageError):
        modeller.run(f"%%deploy model --name net {options}\nhas_run = True")

    assert "has_run" not in modeller.user_ns


@pytest.mark.parametrize(
    ("cell", "error", "text"),
    [
        ("number = 3\n%deploy number", ModelNotServable, "int"),
        ("raw = keras.Sequential([keras.layers.Dense(1)])\n%deploy raw", ModelNotServable, "built"),
        ("%rollback net", ModelNotFound, "net is not served"),
        ("%serving net", ModelNotFound, "net is not served"),
        ("%rollback", ModelNotFound, "nothing is served"),
        ("%serving --resume", ModelNotFound, "nothing is stored"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines(modeller, cell: str, error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        modeller.run(cell)

    shown = caught.value._render_traceback_()
    assert text in shown[0]
    assert shown[1].startswith("  try: ")
    assert len(shown) == 2


def test_version_that_exists_is_not_overwritten(modeller) -> None:
    modeller.run("%deploy model --name net --version 7 -q")

    with pytest.raises(VersionExists, match="7"):
        modeller.run("%deploy model --name net --version 7 -q")
    assert modeller.run("%deploy model --name net -q").version == 8


def test_stage_canary_and_label(modeller) -> None:
    handle = modeller.run("%deploy model --name net --label stable")
    modeller.run("better = make(5.0)\n%deploy better --name net --stage")
    assert (handle.version, handle.versions, handle.traffic) == (1, (1, 2), {1: 100.0})
    modeller.run("%deploy better --name net --canary 25 --label canary")

    assert handle.traffic == {1: 75.0, 3: 25.0}
    assert handle.labels == {"stable": 1, "canary": 3}
    assert handle.predict([[1, 1]], label="canary").tolist() == [[5.0, 5.0]]
    answers = {handle.predict([[1, 1]])[0, 0] for _ in range(200)}
    assert answers == {2.0, 5.0}
    modeller.run("%rollback net")
    assert handle.traffic == {1: 100.0}


def test_shadow_gets_copies_and_no_traffic(modeller) -> None:
    handle = modeller.run("%deploy model --name net")
    modeller.run("better = make(5.0)\n%deploy better --name net --shadow 20 -q")
    assert (handle.traffic, handle.status().shadow) == ({1: 100.0}, (2, 20.0))
    assert "shadow 20 %" in repr(modeller.run("%serving"))
    assert handle.history(1)[0].detail == "copies of 20 % of the requests"
    modeller.run("%deploy better --name net --shadow -q")
    assert handle.status().shadow == (3, 100.0)

    kept = Pairs()
    found = kept.found
    server_of("net").models.observers.add(kept)
    assert handle.predict([[1, 1]], key="ann").tolist() == [[2.0, 2.0]]
    eventually(lambda: found)
    assert found[0].outputs_b is not None
    assert next(iter(found[0].outputs_b.values())).tolist() == [[5.0, 5.0]]

    handle.shadow(2, percent=50)
    assert handle.status().shadow == (2, 50.0)
    assert handle.shadow(None).status().shadow is None
    for line, complaint in (("--shadow 20 --canary 10", "exclude each other"), ("--shadow 0", "percentage above 0")):
        with pytest.raises(UsageError, match=complaint):
            modeller.run(f"%deploy better --name net {line}")
    with pytest.raises(InvalidOption, match="one line of a header"):
        handle.predict([[1, 1]], key="a\nb")


def test_serving_shows_models_and_undeploy_stops_the_server(modeller, capsys) -> None:
    handle = modeller.run("%deploy model --name net --label stable -q")
    url, headers = handle.rest_url, {"Authorization": f"Bearer {handle.token}"}

    text = repr(modeller.run("%serving"))
    assert re.search(r"net +1 +AVAILABLE +100 % +stable +[\d.]+ k?B +promoted", text)
    assert url in text
    assert handle.token not in text + repr(handle) + handle._repr_html_()
    assert modeller.run("%serving net") == handle
    modeller.run("%undeploy net")

    assert "its files stay" in capsys.readouterr().out
    assert "not served" in repr(handle)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, headers=headers, timeout=5)
    assert "nothing is served" in repr(modeller.run("%serving"))


def test_undeployed_model_comes_back_on_the_same_port(modeller) -> None:
    url = modeller.run("%deploy model --name net -q").rest_url
    modeller.run("%undeploy net")

    assert modeller.run("%deploy model --name net -q").rest_url == url


def test_undeploy_of_one_version_and_its_files(modeller, tmp_path) -> None:
    handle = modeller.run("%deploy model --name net -q")
    modeller.run("%deploy model --name net -q")

    with pytest.raises(UsageError, match="still has 100 % of the traffic"):
        modeller.run("%undeploy net --version 2")
    modeller.run("%undeploy net --version 1 --delete")

    assert handle.versions == (2,)
    assert sorted(path.name for path in (tmp_path / "tfserve_models" / "net").iterdir()) == ["2"]
    modeller.run("%undeploy net --delete")
    assert not (tmp_path / "tfserve_models" / "net" / "2").exists()


def test_resume_brings_back_versions_labels_and_traffic(modeller) -> None:
    modeller.run("%deploy model --name net --label stable -q")
    modeller.run("better = make(5.0)\n%deploy better --name net --canary 40 -q")
    modeller.run("import tfserve_nb; tfserve_nb.shutdown()")

    modeller.run("%serving --resume")

    handle = modeller.run("%serving net")
    assert (handle.labels, handle.traffic) == ({"stable": 1}, {1: 60.0, 2: 40.0})
    assert handle.predict([[1, 1]], version=2).tolist() == [[5.0, 5.0]]
    assert [event.action for event in handle.history()] == ["resume", "deploy", "deploy"]


def test_exported_model_that_answers_differently_is_not_served(modeller) -> None:
    handle = modeller.run("%deploy model --name net -q")
    modeller.run(
        """
class Odd(keras.layers.Layer):
    num_calls = 0
    def call(self, x):
        self.num_calls += 1
        return x * self.num_calls
odd = keras.Sequential([keras.Input((2,)), Odd()])
"""
    )

    with pytest.raises(ExportFailed):
        modeller.run("%deploy odd --name net -q")

    assert handle.versions == (1,)
    assert handle.predict([[1, 1]]).tolist() == [[2.0, 2.0]]


def test_no_auth_and_other_settings_of_a_running_server_are_explained(modeller) -> None:
    handle = modeller.run("%deploy model --name net --no-auth -q")
    assert handle.token is None
    assert requests.get(handle.rest_url, timeout=5).status_code == 200

    with pytest.raises(UsageError, match="listens on port"):
        modeller.run("%deploy model --name net --port 1 -q")


def test_wrong_token_is_refused_over_http(modeller) -> None:
    handle = modeller.run("%deploy model --name net -q")

    answer = requests.get(handle.rest_url, headers={"Authorization": "Bearer wrong"}, timeout=5)

    assert (answer.status_code, answer.json()) == (401, {"error": "The token is wrong"})


def test_config_changes_the_defaults(modeller) -> None:
    modeller.run("%config DeployMagics.base_path = 'elsewhere'\n%config DeployMagics.max_batch_size = 4")

    modeller.run("%deploy model --name net -q")

    assert modeller.run("import os; os.path.exists('elsewhere/net/1/saved_model.pb')")


def test_help_shows_options_and_is_in_the_docstring(shell, capsys) -> None:
    shell.run("%deploy --help")

    assert "--max-batch-size ROWS" in capsys.readouterr().out
    assert "--max-batch-size ROWS" in shell.find_line_magic("deploy").__doc__


def test_progress_is_written_as_lines_in_a_terminal(modeller, capsys) -> None:
    modeller.run("%deploy model --name net")

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("deploying net: ")][:3] == [
        "deploying net: exporting",
        "deploying net: checking",
        "deploying net: checking, 4 rows agree",
    ]
    assert any("ready in" in line for line in lines)


def test_completion_of_options_models_names_and_versions(modeller) -> None:
    modeller.run("%deploy model --name net --label stable -q")

    modeller.run("numbers = {'accuracy': 0.9}")

    def complete(line: str) -> set[str]:
        with provisionalcompleter():
            return {one.text for one in modeller.Completer.completions(line, len(line))}

    assert {"--max-batch-size", "--max-enqueued-batches"} <= complete("%deploy model --max")
    assert "model" in complete("%deploy mo")
    assert "net" in complete("%rollback ne")
    assert "1" in complete("%promote net ")
    assert "stable" in complete("%%deploy model --label st")
    assert "1" in complete("%serving net --diff ")
    assert "1" in complete("%serving net --diff 1 ")
    assert "numbers" in complete("%deploy model --metrics num")
    assert "net" in complete("%undeploy --version 1 ne")
    assert {"latency", "p95", "quality"} <= complete("%abtest net --metric ")
    assert {"1", "stable"} <= complete("%abtest net --a ")
    assert "1" in complete("%replay net --onto ")
    assert {"regression", "exact"} <= complete("%serving net --kind ")
    assert "model" in complete("%variants mo")
    assert "net" in complete("%variants ne")
    assert "stable" in complete("%variants net --version ")


def test_extension_can_be_unloaded_and_reloaded(modeller) -> None:
    url = modeller.run("%deploy model --name net -q").rest_url

    modeller.run("%reload_ext tfserve_nb")
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)
    assert modeller.run("%deploy model --name net -q").version == 2
    modeller.run("%unload_ext tfserve_nb")

    assert modeller.find_line_magic("deploy") is None
    assert modeller.find_cell_magic("deploy") is None
    assert not any(type(one).__name__ == "DeployMagics" for one in modeller.configurables)
    modeller.run("%load_ext tfserve_nb")


@pytest.mark.parametrize("given", ["--output-range -1,1", "--output-range=-1,1", "--output-range -1.5e0,+1"])
def test_a_range_may_begin_with_a_minus(shell, given: str) -> None:
    with pytest.raises(ModelNotFound):  # so far it was understood
        shell.run(f"%abtest net --a 1 --b 2 {given}")


def test_what_is_no_list_of_numbers_is_named(shell) -> None:
    with pytest.raises(UsageError, match="'1,x' must be numbers"):
        shell.run("%abtest net --a 1 --b 2 --steps 1,x")


def test_a_function_serves_its_own_variables(modeller) -> None:
    """Never a global of the same name: that would be another model."""
    modeller.run(
        """
other, rows, wrong = make(9.0), np.zeros((1, 5), "float32"), 1

def train(factor):
    other = make(factor)
    rows = np.ones((3, 2), "float32")
    handle = %deploy other --name net --check rows --warmup rows -q --out made
    return handle

def from_a_body(factor):
    wrong = make(factor)
    return get_ipython().run_cell_magic("deploy", "--name net --out made -q", "again = wrong\\nagain")
"""
    )

    modeller.run("train(3.0)")
    assert modeller.user_ns["made"].predict([[1, 1]]).tolist() == [[3.0, 3.0]]
    modeller.run("from_a_body(4.0)")
    assert modeller.user_ns["made"].predict([[1, 1]]).tolist() == [[4.0, 4.0]]


def test_numbers_of_deleted_versions_are_not_used_again(modeller) -> None:
    modeller.run("d = None\nfor _ in range(3):\n    %deploy model --name net -q --out d")
    modeller.run("%promote net 1\n%undeploy net --version 3 --delete")
    modeller.run("import tfserve_nb; tfserve_nb.shutdown()")

    assert modeller.run("%deploy model --name net -q").version == 4  # as after a restart of the kernel

    modeller.run("%undeploy net --delete --force")
    assert modeller.run("%deploy model --name net -q").version == 5


def test_an_engine_is_chosen_shown_and_changed(modeller, capsys, monkeypatch) -> None:
    convert_here(monkeypatch)

    modeller.run("%deploy model --engine onnx")
    shown = capsys.readouterr().out
    assert "Engines of model, version 1" in shown
    assert re.search(r"onnx .* yes +chosen", shown)
    assert "model: checking, 4 rows agree" in shown or "4 rows agree" in shown
    assert "Engines of model, version 1" in repr(modeller.run("%serving"))

    modeller.run("%serving model --engine tensorflow")
    assert "model: tensorflow runs version 1 now" in capsys.readouterr().out
    modeller.run("%serving model --engine litert")
    shown = capsys.readouterr().out
    assert "model: litert runs version 1 now" in shown
    assert re.search(r"litert .* yes +chosen", shown)
    with pytest.raises(UsageError):
        modeller.run("%serving model --engine onyx")
    with pytest.raises(UsageError, match="cannot run this model: .*text"):
        modeller.run(
            "import tensorflow as tf\n"
            "text = tf.Module()\n"
            "text.__call__ = tf.function(tf.strings.upper, input_signature=[tf.TensorSpec([None], tf.string)])\n"
            "%deploy text --engine onnx --quiet"
        )


@pytest.mark.timeout(200)
def test_variants_are_measured_of_a_model_or_of_what_is_served_under_a_name(modeller, capsys) -> None:
    """A variable goes first if it is a model; here `net` is none."""
    modeller.run("%deploy model --name net -q")
    modeller.run("net = {'epochs': 2}")
    modeller.run("x = np.ones((5, 2), 'float32')")

    found = modeller.run("%variants net --check x --optimize float16 --engine tensorflow --out found")

    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("variants of net: ")]
    assert lines[:3] == [
        "variants of net: exporting",
        "variants of net: optimizing float16",
        "variants of net: measuring float32",
    ]
    assert lines[-1].startswith("variants of net: ready in")
    text = " ".join(re.split(r"\s+", to_text(report_of(found))))
    assert "Variants of net, version 1 chosen: float32 by tensorflow" in text
    assert "float16 not made" in text
    assert "nothing of this model can be stored in fewer bytes" in text
    assert "on 5 rows, with the export" in text
    assert modeller.run("found") is found
    assert [row.agreement for row in found] == [1.0, None]
