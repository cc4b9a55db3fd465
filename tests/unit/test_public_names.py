"""What users type of `tfserve_nb`: which names there are, what they stand for, and what looking at them imports."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import tfserve_nb
from tfserve_nb import errors
from tfserve_nb.api.deploy import deploy

ROOT = Path(__file__).parents[2]

FUNCTIONS = {
    "connect", "deploy", "deployment", "frame_of", "load_captured", "load_ipython_extension", "load_result", "resume",
    "shutdown", "unload_ipython_extension",
}  # fmt: skip
CLASSES = {
    "ABTest", "BenchmarkResult", "CapturedRequests", "ComparisonResult", "DeployCallback", "Deployment", "ReplayLimits",
    "ReplayResult", "SweepResult", "VersionDiff",
}  # fmt: skip
ERRORS = {
    "Cancelled", "ConfigRejected", "DeadlineExceeded", "ExportFailed", "FailedPrecondition", "InvalidOption",
    "InvalidRequest", "LabelNotFound", "ModelNotFound", "ModelNotServable", "NotAvailable", "PortInUse", "QueueFull",
    "ReplayFailed", "RunFailed", "RunRejected", "ServerFailed", "ServingError", "Unimplemented", "VariantFailed",
    "VersionExists", "VersionNotFound",
}  # fmt: skip

HEAVY = ("tensorflow", "keras", "matplotlib", "ipywidgets", "tornado")


def printed_by(code: str, *, timeout_s: float = 50.0) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=timeout_s)
    return done.stdout.split()


def test_these_are_the_public_names() -> None:
    assert set(tfserve_nb.__all__) == FUNCTIONS | CLASSES | ERRORS | {"__version__"}
    assert len(set(tfserve_nb.__all__)) == len(tfserve_nb.__all__)


def test_all_errors_are_public() -> None:
    found = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }

    assert found == ERRORS


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES | ERRORS))
def test_each_name_stands_for_what_is_called_so(name: str) -> None:
    value = getattr(tfserve_nb, name)

    assert value.__name__ == name
    assert inspect.isclass(value) == (name not in FUNCTIONS)
    assert inspect.getdoc(value)


def test_completion_offers_the_public_names_and_no_others() -> None:
    offered = {name for name in dir(tfserve_nb) if not name.startswith("_")}

    assert offered | {"__version__"} == set(tfserve_nb.__all__)
    assert "__version__" in dir(tfserve_nb)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'depploy'"):
        _ = tfserve_nb.depploy


def test_deploy_has_its_own_signature() -> None:
    assert tfserve_nb.deploy is deploy
    parameters = inspect.signature(tfserve_nb.deploy).parameters
    assert next(iter(parameters)) == "model"
    assert {"name", "canary", "check_replay", "max_batch_size", "base_path"} <= parameters.keys()
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def test_the_handle_of_a_model_that_is_not_served_says_what_is() -> None:
    with pytest.raises(tfserve_nb.ModelNotFound, match="digits is not served here; served: none") as caught:
        tfserve_nb.deployment("digits")

    assert caught.value.hint == "%deploy MODEL --name digits, or %serving --resume"


def test_values_can_be_pickled() -> None:
    limits = tfserve_nb.ReplayLimits(max_disagreement=0.05)

    assert pickle.loads(pickle.dumps(limits)) == limits  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(tfserve_nb.deploy)) is tfserve_nb.deploy  # noqa: S301 - our own


@pytest.mark.parametrize(
    "look",
    [
        "import inspect; inspect.signature(tfserve_nb.deploy)",
        "import inspect; [inspect.signature(getattr(tfserve_nb, one)) for one in tfserve_nb.__all__ if one[0] != '_']",
        "from tfserve_nb import *",
        "from rlcompleter import Completer; print(Completer(globals()).attr_matches('tfserve_nb.de'), file=sys.stderr)",
    ],
    ids=["signature", "all signatures", "import all", "tab"],
)
def test_looking_at_names_imports_nothing_heavy(look: str) -> None:
    assert printed_by(f"import sys, tfserve_nb\n{look}\nprint(*sorted({{*{HEAVY!r}}} & set(sys.modules)))") == []


def test_jedi_completes_deploy_and_its_options_without_anything_heavy() -> None:
    """Tab in a notebook asks jedi, which looks at every name that matches."""
    code = (
        "import sys, jedi, tfserve_nb\n"
        "def complete(text): return [one.name for one in jedi.Interpreter(text, [globals()]).complete()]\n"
        "def kinds(text): return [one.type for one in jedi.Interpreter(text, [globals()]).complete()]\n"
        "print('deploy' in complete('tfserve_nb.de'), 'canary=' in complete('tfserve_nb.deploy(model, can'))\n"
        "kinds('tfserve_nb.')\n"
        f"print(*sorted({{*{HEAVY!r}}} & set(sys.modules)))"
    )
    assert printed_by(code) == ["True", "True"]


def test_loading_and_reloading_the_extension_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell()\n"
        "shell.run_line_magic('load_ext', 'tfserve_nb')\n"
        "shell.run_line_magic('reload_ext', 'tfserve_nb')\n"
        "assert shell.find_line_magic('deploy')\n"
        f"print('loaded:', *sorted({{*{HEAVY!r}}} & set(sys.modules)))"
    )
    assert printed_by(code)[-1] == "loaded:"


@pytest.mark.timeout(300)
def test_type_checkers_know_the_real_parameters(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import tfserve_nb\n"
        "reveal_type(tfserve_nb.deploy)\n"
        "reveal_type(tfserve_nb.deployment('digits'))\n"
        "reveal_type(tfserve_nb.load_result('r.npz'))\n"
        "tfserve_nb.deploy(None, canery=5)\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--no-error-summary", script],
        capture_output=True, text=True, check=False, timeout=280, cwd=ROOT,
    )  # fmt: skip

    lines = done.stdout.splitlines()
    assert len(lines) >= 4, done.stderr
    assert "canary: float | None =" in lines[0]
    assert "check_replay: bool | tfserve_nb.replay.result.ReplayLimits =" in lines[0]
    assert "-> tfserve_nb.api.deployment.Deployment" in lines[0]
    assert 'Revealed type is "tfserve_nb.api.deployment.Deployment"' in lines[1]
    assert 'Revealed type is "tfserve_nb.bench.result.BenchmarkResult"' in lines[2]
    assert 'Unexpected keyword argument "canery" for "deploy"' in lines[3]
