"""The shape of the package: imports point down, nothing goes in circles, heavy packages stay where they belong."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "tfserve_nb"

LAYERS = (
    ("__init__", "__main__"),
    ("notebook", "cli"),
    ("dashboards",),
    ("api",),
    ("scaleout",),
    ("variants",),
    ("replay", "diff"),
    ("bench",),
    ("server",),
    ("experiment",),
    ("serving",),
    ("export",),
    ("reports",),
    ("agreement",),
    ("protos", "markup", "temporary", "limited_process", "threads", "serialization"),
    ("options",),
    ("errors", "types", "_version"),
)
"""Top to bottom. A module may import from its own folder and from lower layers."""

RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}

THIRD_PARTY = {
    "numpy": ("",),
    "tensorflow": ("protos", "export", "serving", "server/config_files", "scaleout/mlflow/tfserve_nb_pyfunc"),
    "ml_dtypes": ("types",),
    "jax": ("export/backends/jax",),
    "keras": ("export", "serving", "api/callback", "scaleout/mlflow/fetch"),
    # protos and stubs; they import TensorFlow
    "tensorflow_serving": ("export", "server", "bench/load/targets", "scaleout/parity", "scaleout/ray"),
    "google": ("export", "server", "scaleout/parity"),  # protobuf
    "google_crc32c": ("protos",),
    "grpc": ("server", "bench/load", "scaleout/parity/grpc_client", "scaleout/ray"),
    "grpc_health": ("server",),
    "grpc_reflection": ("server",),
    "prometheus_client": ("server",),
    "cryptography": ("server",),
    "cattrs": ("serialization",),
    "httpx": ("server/admin/connection",),
    "ai_edge_litert": ("serving", "export/variants/tflite"),
    "onnx": ("export/backends/own_onnx", "export/single_file", "serving/engines/convert"),
    "onnxruntime": ("serving/engines/onnx", "serving/engines/single_file/onnx"),
    "tf2onnx": ("serving/engines/convert",),
    "flatbuffers": ("serving/engines/single_file/tflite_file",),
    "tf_keras": ("export",),
    "tornado": ("server",),
    "httptools": ("server/http", "bench/load/http_client"),
    "uvloop": ("server/event_loop", "bench/load/generator"),
    "simdjson": ("server/rest/json_numbers",),
    "orjson": ("server",),
    "ipywidgets": ("dashboards", "notebook/display"),
    "IPython": ("notebook", "__init__"),  # the package itself names its types only
    "traitlets": ("notebook",),
    "matplotlib": ("reports/figure",),
    "PIL": ("dashboards/pages/values",),
    "psutil": ("serving/telemetry/resources",),
    "pynvml": ("serving/telemetry/resources",),
    "scipy": ("bench/statistics", "bench/comparison", "experiment", "agreement"),
    "rich": ("cli", "reports/text"),
    "pandas": ("bench/result", "replay/result", "agreement/worst", "serving/telemetry/capture"),
    "pyarrow": ("serving/telemetry/capture",),
    "ray": ("scaleout/ray",),
    "starlette": ("scaleout/ray",),  # the class of responses that Ray takes
    "yaml": ("scaleout/bundles/files",),
    "mlflow": ("scaleout/mlflow",),
}
"""Third-party package -> the folders and modules that may import it; "" is the whole package."""

HEAVY = {
    "tensorflow", "keras", "matplotlib", "tensorflow_serving", "google", "grpc", "grpc_health", "grpc_reflection",
    "prometheus_client", "cryptography", "ai_edge_litert", "scipy", "rich", "pandas", "psutil", "pynvml", "PIL",
    "jax", "pyarrow", "cattrs", "httpx", "tf_keras", "ml_dtypes", "flatbuffers", "onnx", "onnxruntime", "tf2onnx",
    "google_crc32c", "mlflow", "ray", "starlette", "yaml",
}  # fmt: skip
"""Packages that take too long to import for `%load_ext`: they are imported inside functions."""

VIEWS_OF_THE_CORE = {
    "dashboards": ("serving.telemetry", "serving.engines.kinds"),
    "server": (
        "serving.core",
        "serving.backend",
        "serving.admin",
        "serving.telemetry",
        "serving.batching.options",
        "serving.models.model_config",
        "serving.models.placement",
        "serving.versions.source",
        "serving.versions.inputs",
        "serving.engines.evidence",
        "export.arrays",
        "export.signatures",
        "export.prediction_log",
    ),
}
"""What dashboards and servers may import of the core: views run on recorded data, servers through one interface."""

MAX_CODE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MODULES = 16
FULL_FOLDERS: dict[str, str] = {}
"""Folders with more than `MAX_MODULES` modules, with the reason."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module.

    Attributes:
        target: dotted name; of a module of the package, without `tfserve_nb.`.
        is_own: whether the target is part of the package.
        is_relative: whether it was written with leading dots.
        is_lazy: whether it runs inside a function, or never (`TYPE_CHECKING`).
        line: its line.
    """

    target: str
    is_own: bool
    is_relative: bool
    is_lazy: bool
    line: int


def name_of(path: Path) -> str:
    """`serving.core` for tfserve_nb/serving/core.py, `serving` for its __init__.py, `__init__` for the package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
"""Dotted name of each module -> its file."""


def resolve(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Yield target, is_own and is_relative of each module that an import statement names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, alias.name.split(".")[0] == PACKAGE.name, False
        return
    if not node.level:
        module = node.module or ""
        yield module, module.split(".")[0] == PACKAGE.name, False
        return
    package = path.relative_to(PACKAGE).parent.parts
    base = [*package[: len(package) - node.level + 1], *filter(None, (node.module or "").split("."))]
    for alias in node.names:
        deeper = ".".join((*base, alias.name))
        yield deeper if deeper in PATHS else ".".join(base) or "__init__", True, True


def imports_of(path: Path) -> list[Import]:
    found = []

    def visit(node: ast.AST, *, is_lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.extend(Import(*parts, is_lazy, child.lineno) for parts in resolve(child, path))
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            visit(child, is_lazy=is_lazy or is_function or is_for_types)

    visit(ast.parse(path.read_text(encoding="utf-8")), is_lazy=False)
    return found


IMPORTS = {name: imports_of(path) for name, path in PATHS.items()}


def unit_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def is_within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of `places` or lies in one that is a folder."""
    return any(not place or name == place or name.startswith(f"{place}.") for place in places)


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The first circle of a graph, as a path, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


# ---------------------------------------------------------------- layers and circles


def test_every_module_and_layer_has_a_place() -> None:
    assert {unit_of(name) for name in PATHS} == set(RANK)


def test_imports_point_down() -> None:
    wrong = [
        f"{name}, line {found.line}: imports {found.target}"
        for name, imports in IMPORTS.items()
        for found in imports
        if found.is_own
        and unit_of(found.target) != unit_of(name)
        and RANK[unit_of(found.target)] <= RANK[unit_of(name)]
    ]

    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports inside functions and for types count: a circle that does not run is one to the reader all the same."""
    graph = {name: {found.target for found in IMPORTS[name] if found.is_own} - {name} for name in PATHS}

    assert circles(graph) == []


def test_no_folder_imports_itself_in_a_circle() -> None:
    """Inside each folder, its files and folders import each other in one direction."""
    folders = ["", *(name for name, path in PATHS.items() if path.name == "__init__.py" and path.parent != PACKAGE)]
    wrong = []
    for folder in folders:
        prefix = f"{folder}." if folder else ""
        graph: dict[str, set[str]] = defaultdict(set)
        for name in PATHS:
            if not name.startswith(prefix):
                continue
            member = unit_of(name.removeprefix(prefix))
            targets = {found.target for found in IMPORTS[name] if found.is_own and found.target.startswith(prefix)}
            graph[member] |= {unit_of(target.removeprefix(prefix)) for target in targets} - {member}
        wrong += [f"in {folder or 'tfserve_nb'}: {circle}" for circle in circles(graph)]

    assert wrong == []


def test_imports_inside_the_package_are_relative() -> None:
    wrong = [
        f"{name}, line {found.line}: {found.target}"
        for name, imports in IMPORTS.items()
        for found in imports
        if found.is_own and not found.is_relative
    ]

    assert wrong == []


def test_dashboards_and_servers_see_little_of_the_core() -> None:
    wrong = [
        f"{name}, line {found.line}: imports {found.target}"
        for name, imports in IMPORTS.items()
        for found in imports
        if unit_of(name) in VIEWS_OF_THE_CORE
        and found.is_own
        and unit_of(found.target) in {"serving", "export", "server"} - {unit_of(name)}
        and not is_within(found.target, VIEWS_OF_THE_CORE[unit_of(name)])
    ]

    assert wrong == []


# ---------------------------------------------------------------- third-party packages


def test_third_party_packages_stay_where_they_belong() -> None:
    wrong = []
    for name, imports in IMPORTS.items():
        for found in imports:
            top = unit_of(found.target)
            if found.is_own or top in sys.stdlib_module_names:
                continue
            allowed = tuple(part.replace("/", ".") for part in THIRD_PARTY.get(top, ("nowhere",)))
            if not is_within(name, allowed):
                wrong.append(f"{name}, line {found.line}: imports {top}, which is allowed in {allowed}")
            if top in HEAVY and not found.is_lazy:
                wrong.append(f"{name}, line {found.line}: {top} must be imported inside a function")

    assert wrong == []


def test_no_rule_names_what_is_not_there() -> None:
    folders = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.is_dir()}
    modules = {name.replace(".", "/") for name in PATHS}
    places = {place for allowed in THIRD_PARTY.values() for place in allowed if place}
    places |= {place.replace(".", "/") for allowed in VIEWS_OF_THE_CORE.values() for place in allowed}
    imported = {unit_of(found.target) for imports in IMPORTS.values() for found in imports if not found.is_own}

    assert places - folders - modules == set()
    assert (set(THIRD_PARTY) | HEAVY) - imported == set()


def test_importing_the_package_loads_no_heavy_package() -> None:
    heavy = ("tensorflow", "keras", "matplotlib", "ipywidgets", "tornado", "IPython")
    code = f"import sys, tfserve_nb; print(*[name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.split() == []


# ---------------------------------------------------------------- sizes


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of all docstrings and attribute docstrings: explaining is free."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def code_lines(text: str) -> set[int]:
    """The numbers of the lines that hold code: no docstring, comment or blank line."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(ast.parse(text))


def test_lines_of_code_are_counted_without_docstrings_comments_and_blank_lines() -> None:
    text = '"""What.\n\nMore."""\n\n# why\nx = """a\nb"""\n\n\ndef f() -> None:\n    """That."""\n    g(  # so\n    )\n'

    assert sorted(code_lines(text)) == [6, 7, 10, 12, 13]


def test_modules_and_functions_stay_short() -> None:
    long = []
    for name, path in PATHS.items():
        text = path.read_text(encoding="utf-8")
        functions = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        spans = [(node, range(node.lineno, (node.end_lineno or node.lineno) + 1)) for node in functions]
        spans = [(node, lines) for node, lines in spans if len(lines) > MAX_FUNCTION_LINES]
        if not spans and text.count("\n") <= MAX_CODE_LINES:
            continue  # counting code takes long, and there is not more of it than there are lines
        code = code_lines(text)
        if len(code) > MAX_CODE_LINES:
            long.append(f"{name} has {len(code)} lines of code")
        for node, lines in spans:
            if (count := len(code & set(lines))) > MAX_FUNCTION_LINES:
                long.append(f"{name}, line {node.lineno}: {node.name} has {count} lines of code")

    assert long == []


def test_no_folder_is_a_long_list() -> None:
    count: dict[str, int] = defaultdict(int)
    for path in PATHS.values():
        if path.name != "__init__.py":
            count[str(path.parent.relative_to(PACKAGE))] += 1

    assert {folder: number for folder, number in count.items() if number > MAX_MODULES}.keys() == FULL_FOLDERS.keys()


def test_the_architecture_page_names_every_folder() -> None:
    page = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = [path.parent for path in PATHS.values() if path.name == "__init__.py" and path.parent != PACKAGE]

    assert [folder.name for folder in folders if f"`{folder.name}/`" not in page] == []
