"""Options are declared once: what a field says is what command lines, help and Python know."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import pytest

from tfserve_nb.api import deploy as deploying
from tfserve_nb.api.deploy_options import GROUPS
from tfserve_nb.errors import InvalidOption
from tfserve_nb.options import Option, given, option, options_of, read


@dataclass(frozen=True)
class Oven:
    """Something with every kind of option."""

    dish: str = option(MISSING, "what is baked", is_positional=True)
    degrees: float = option(180.0, "how hot, to 1 %")
    minutes: int | None = option(None, "how long", shown="until it is brown", flags=("--minutes", "-m", "--time"))
    fan: bool = option(False, "with the `fan`")
    light: bool = option(True, "in the dark", flags=("--no-light",))
    trays: tuple[int, ...] = option((), "which trays")
    heat: str = option("both", "from where", choices=("top", "both"))
    steam: float | None = option(None, "with steam", bare=50.0, metavar="PERCENT")
    span: tuple[str, ...] = option((), "from and to", num_values=2, metavar=("FROM", "TO"), parse=str.upper)
    inside: int = 3  # for Python only


def parser_of(kind: type[Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("oven", exit_on_error=False)
    for one in options_of(kind):
        names, settings = one.for_argparse()
        parser.add_argument(*names, **settings)
    return parser


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("bread", "dish", "bread"),
        ("bread", "degrees", 180.0),
        ("bread --degrees 200", "degrees", 200.0),
        ("bread -m 5", "minutes", 5),
        ("bread --time 6", "minutes", 6),
        ("bread --fan", "fan", True),
        ("bread", "light", True),
        ("bread --no-light", "light", False),
        ("bread --trays 1,3", "trays", (1, 3)),
        ("bread --heat top", "heat", "top"),
        ("bread --steam", "steam", 50.0),
        ("bread --steam 20", "steam", 20.0),
        ("bread --span a b", "span", ["A", "B"]),
        ("bread", "inside", 3),
    ],
)
def test_a_line_becomes_a_dataclass(line: str, field: str, value: object) -> None:
    parsed = parser_of(Oven).parse_args(line.split())

    assert getattr(read(Oven, parsed), field) == value


def test_only_what_a_line_names_is_given_and_defaults_can_be_changed() -> None:
    parsed = parser_of(Oven).parse_args(["bread", "--degrees", "180"])

    assert given(parsed, Oven) == {"dish": "bread", "degrees": 180.0}
    assert (read(Oven, parsed, degrees=90.0, minutes=1).degrees, read(Oven, parsed, minutes=1).minutes) == (180.0, 1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bread --degrees hot", "--degrees: invalid float value: 'hot'"),
        ("bread --trays 1,x", "'1,x' must be whole numbers with commas between them"),
        ("bread --heat low", "invalid choice: 'low'"),
    ],
)
def test_a_wrong_value_is_named(line: str, complaint: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=complaint):
        parser_of(Oven).parse_args(line.split())


def test_help_and_documents_say_the_same() -> None:
    text = " ".join(parser_of(Oven).format_help().split())
    about = {one.field: one for one in options_of(Oven)}

    assert "--degrees X how hot, to 1 %; default: 180" in text
    assert "--fan with the fan --no-light" in text
    assert [about[field].usage for field in ("dish", "minutes", "trays", "heat", "steam", "span", "light")] == [
        "DISH", "--minutes N", "--trays N,N,...", "--heat top|both", "--steam [PERCENT]", "--span FROM TO",
        "--no-light",
    ]  # fmt: skip
    assert [about[field].default_text for field in ("degrees", "minutes", "fan", "steam")] == [
        "180", "until it is brown", "off", "",
    ]  # fmt: skip


def test_the_keywords_of_deploy_are_its_options() -> None:
    """Names, defaults and types; a sequence is made a tuple, and `frontends` is another name for `workers`."""
    keywords = inspect.signature(deploying.deploy).parameters
    hints = typing.get_type_hints(deploying.deploy)
    declared = {one.field: one for one in options_of(*GROUPS)}

    own = ("model", "name", "code", "progress", "frontends")
    assert [name for name in keywords if name not in own] == list(declared)
    assert {name: keywords[name].default for name in declared} == {name: one.default for name, one in declared.items()}
    assert hints.pop("allowed_batch_sizes") == Sequence[int]
    assert {name: hints[name] for name in declared if name in hints} == {
        name: one.type for name, one in declared.items() if name in hints
    }


def test_every_keyword_of_deploy_reaches_its_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    wanted: dict[str, Any] = {
        "version": 7, "label": "stable", "stage": True, "keep": 5, "base_path": tmp_path, "port": 0, "grpc_port": 0,
        "workers": 3, "isolate": True, "auth": True, "max_batch_size": 8, "batch_timeout_micros": 9,
        "max_enqueued_batches": 10, "allowed_batch_sizes": (2, 8), "device": "/CPU:0", "optimize": "xla", "warmup": "w",
        "check": "c",
    }  # fmt: skip
    requests: list[deploying.DeployRequest] = []

    def stop(request: deploying.DeployRequest, _: object) -> None:
        requests.append(request)
        raise InterruptedError

    monkeypatch.setattr(deploying, "_server", stop)
    with pytest.raises(InterruptedError):
        deploying.deploy(object(), "net", **wanted)

    request = requests[0]
    found: dict[str, Any] = {}
    for group in (request.export, request.placement, request.batching, request.serve, request.listen):
        found |= {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
    assert {name: found[name] for name in wanted} == wanted
    assert request.folder == tmp_path


def test_a_group_refuses_a_wrong_value() -> None:
    from tfserve_nb.api.deploy_options import check_options

    check_options({"optimize": "xla", "max_batch_size": 4, "check": "the name of a variable"})
    with pytest.raises(InvalidOption, match="optimize='fast' must be one of"):
        check_options({"optimize": "fast"})
    with pytest.raises(InvalidOption, match="a staged version gets none"):
        check_options({"stage": True, "slo_p99_ms": 5.0})


def test_a_type_that_says_nothing_is_text() -> None:
    assert Option("anything", field="what", type=Any).usage == "--what WHAT"


@pytest.mark.parametrize(
    ("method", "given", "words", "hint"),
    [
        ("benchmark", {"warmup": 0}, "benchmark has no option 'warmup'; it has rate, .*warmup_s", "warmup_s=..."),
        ("ab_test", {"a": 1, "b": 2, "spilt": 5}, "ab_test has no option 'spilt'; it has split, ", "split=..."),
        (
            "bundle",
            {"folder": "x", "target": "ray", "versionz": (2,)},
            "bundle has no option 'versionz'",
            "versions=...",
        ),
        ("parity", {"other": "http://x", "toleranze": 1}, "parity has no option 'toleranze'", "tolerance=..."),
        ("variants", {"zzz": 1}, "variants has no option 'zzz'", ""),
    ],
)
def test_a_method_names_the_option_that_it_does_not_have(
    method: str, given: dict[str, Any], words: str, hint: str
) -> None:
    from tfserve_nb.api.deployment import Deployment

    with pytest.raises(InvalidOption, match=f"^{words}") as caught:
        getattr(Deployment("net"), method)(**given)
    assert caught.value.hint == hint


def test_methods_show_the_options_that_they_take() -> None:
    from tfserve_nb.api.deployment import Deployment

    benchmark = inspect.signature(Deployment.benchmark).parameters
    ab_test = inspect.signature(Deployment("net").ab_test).parameters

    assert (benchmark["rows"].default, benchmark["rate"].annotation, "values" in benchmark) == (1, float | None, True)
    assert (ab_test["split"].default, ab_test["max_error_rate"].default, "options" in ab_test) == (50.0, 0.05, False)
    assert list(ab_test)[:3] == ["a", "b", "values"]
