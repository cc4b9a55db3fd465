"""The magics: deploy, serving, rollback, promote, undeploy, dashboard, benchmark, abtest, replay, variants.

Options are checked before anything runs, and wrong ones are a `UsageError`; what goes wrong later is a `ServingError`,
which shows as two lines and fails the cell.

Thread: the kernel's main thread.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar  # the user's objects

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from traitlets import Int, Unicode

from ..agreement.kinds import AgreementOptions
from ..api.ab_test import ABTest
from ..api.benchmark import compare_runs
from ..api.connect import deployment, deployments, resume
from ..api.deploy import deploy
from ..api.deploy_options import GROUPS, check_options
from ..api.deployment import DEFAULT_BASE_PATH, Deployment
from ..bench.options import Options, RunOptions
from ..bench.report import AnyResult
from ..diff.result import VersionDiff
from ..errors import InvalidOption, ModelNotFound
from ..export.provenance.code import Code, running_cell
from ..export.single_file.source import name_of
from ..options import given, read
from ..replay.result import ReplayLimits, ReplayOptions, ReplayResult
from ..serving.batching.options import DEFAULT_MAX_BATCH_SIZE
from ..serving.models.placement import DEFAULT_KEEP
from ..variants.options import VariantOptions
from ..variants.result import VariantsResult
from .abtest import OPTIONS as AB_OPTIONS
from .abtest import ExperimentView
from .abtest import run as run_abtest
from .arguments import look_up_model, look_up_variables, with_options
from .benchmark import BenchmarkView, LoadedUrl, check_together, load_url, save, stored_in
from .cells import run_body
from .commands import (
    AskOptions,
    DeployedModel,
    EndOptions,
    MeasuredModel,
    Output,
    PromotedVersion,
    ReplayedRequests,
    RollbackOptions,
    ServedModel,
    ServingOptions,
    TestedVersions,
    UndeployOptions,
)
from .overview import Overview, show_engines
from .progress import ProgressView, progress_view
from .replay import capture, replay, replay_limits
from .scope import visible_variables
from .variants import measure

T = TypeVar("T")


@contextlib.contextmanager
def wrong_options_as_usage_error() -> Iterator[None]:
    """IPython shows exactly `UsageError` as one line."""
    try:
        yield
    except InvalidOption as error:
        raise UsageError(f"{error.message}{f' (try: {error.hint})' if error.hint else ''}") from None


@magics_class
class DeployMagics(Magics):
    """Magics of tfserve_nb. `%config DeployMagics` shows and changes the defaults."""

    shell: InteractiveShell  # IPython allows for none; `load` always gives one
    base_path = Unicode(DEFAULT_BASE_PATH, help="Folder that NAME/VERSION is written to.").tag(config=True)
    max_batch_size = Int(DEFAULT_MAX_BATCH_SIZE, help="Most rows of one run of the model.").tag(config=True)
    keep = Int(DEFAULT_KEEP, help="Versions of a model that stay loaded for instant rollback.").tag(config=True)

    @line_cell_magic
    @with_options(DeployedModel, *GROUPS, ReplayLimits, Output)
    def deploy(self, parsed: argparse.Namespace, cell: str | None = None) -> Deployment | None:
        """Export a model as the next version, check it, load it, and switch to it without losing a request.

        `%deploy MODEL` deploys a variable. `%%deploy [MODEL]` runs the rest of the cell first, as a normal cell;
        without MODEL, the value of its last expression is deployed. If the cell fails, what was served before
        still is.
        """
        chosen, output = read(DeployedModel, parsed), read(Output, parsed)
        if cell is None and chosen.model is None:
            raise UsageError("%deploy needs a model: %deploy MODEL (or %%deploy above the cell that makes it)")
        with wrong_options_as_usage_error():
            options = {"max_batch_size": self.max_batch_size, "keep": self.keep, **given(parsed, *GROUPS)}
            options["check_replay"] = replay_limits(parsed) or False
            check_options(options)
        typed = f"%deploy {parsed.line}" if cell is None else f"%%deploy {parsed.line}\n{cell}"
        code = running_cell(self.shell) or Code(typed.rstrip("\n"))
        variables = visible_variables(self.shell)
        model, name = self._model(chosen, cell, variables)
        for group in GROUPS:
            options |= look_up_variables(variables, group, options)
        options.setdefault("base_path", self._base_path(name))
        handle = self._deploy(model, name, {**options, "code": code}, is_quiet=output.quiet)
        if not output.quiet:
            show_engines(self.shell, handle)
        if output.out is not None:
            self.shell.user_ns[output.out] = handle
        return None if output.quiet and (cell is not None or output.out is not None) else handle

    @line_magic
    @with_options(ServedModel, ServingOptions, AgreementOptions)
    def serving(self, parsed: argparse.Namespace) -> Overview | Deployment | VersionDiff | None:
        """Show what this kernel serves, what two versions differ in, or bring back what an earlier kernel served.

        `%serving NAME --capture on` keeps its requests with their arrival times, in the memory of its server,
        for `%replay` and `%deploy --check-replay`. Headers and tokens are never among them.
        """
        name, options = read(ServedModel, parsed).name, read(ServingOptions, parsed)
        if options.capture is not None:
            with wrong_options_as_usage_error():
                capture(self._handle(name), options)
            return None
        if options.engine is not None:
            handle = self._handle(name)
            with wrong_options_as_usage_error():
                handle.set_engine(options.engine, progress=ProgressView(self.shell, f"an engine for {handle.name}"))
            show_engines(self.shell, handle, handle.version)
            print(f"{handle.name}: {handle.engine} runs version {handle.version} now")
            return None
        if options.diff is not None:
            rows = look_up_variables(visible_variables(self.shell), ServingOptions, given(parsed, ServingOptions)).get(
                "values"
            )
            return self._handle(name).diff(*options.diff, rows, **given(parsed, AgreementOptions))
        if options.resume:
            resume(
                options.base_path or self.base_path,
                name,
                isolate=options.isolate,
                progress=ProgressView(self.shell, f"resuming {name or 'all models'}"),
                report=lambda text: print("not resumed:", text),
            )
        return Overview(tuple(deployments())) if name is None else self._handle(name)

    @line_magic
    @with_options(ServedModel, RollbackOptions)
    def rollback(self, parsed: argparse.Namespace) -> None:
        """Go back to the version that was promoted before, or end a running traffic split."""
        handle, options = self._served(parsed), read(RollbackOptions, parsed)
        self._switch(handle, lambda: handle.rollback(options.to))

    @line_magic
    @with_options(PromotedVersion)
    def promote(self, parsed: argparse.Namespace) -> None:
        """Give all traffic to a version."""
        options = read(PromotedVersion, parsed)
        handle = self._handle(options.name)
        self._switch(handle, lambda: handle.promote(options.version))

    @line_magic
    @with_options(ServedModel, UndeployOptions)
    def undeploy(self, parsed: argparse.Namespace) -> None:
        """Stop serving a model, or unload one version of it. The server stops with its last model."""
        handle, options = self._served(parsed), read(UndeployOptions, parsed)
        with wrong_options_as_usage_error():
            handle.undeploy(options.version, delete=options.delete, force=options.force)
        what = handle.name if options.version is None else f"version {options.version} of {handle.name}"
        print(f"{what} is {'deleted' if options.delete else 'no longer served; its files stay'}")

    @line_magic
    @with_options(ServedModel)
    def dashboard(self, parsed: argparse.Namespace) -> Any:
        """Show the versions and live latency of a model, with buttons to promote and roll back."""
        from ..dashboards import dashboard_for

        return dashboard_for(self._served(parsed))

    @line_cell_magic
    @with_options(ServedModel, Options, LoadedUrl, RunOptions, Output)
    def benchmark(self, parsed: argparse.Namespace, cell: str | None = None) -> AnyResult | None:
        """Load a model from another process and show what its clients see: latency, throughput, failures.

        `%benchmark NAME` sends rows that it makes up from the signature. `%%benchmark NAME` runs the rest of the cell
        first and sends the rows that its last expression gives. Requests come in an open loop: at their times,
        even while earlier ones wait; latency counts from the moment at which each was due. Interrupting the cell
        keeps what was found until then.
        """
        name, url = read(ServedModel, parsed).name, read(LoadedUrl, parsed).url
        run, output = read(RunOptions, parsed), read(Output, parsed)
        check_together(name, url, run)
        folder = Path(self.base_path).absolute()
        with wrong_options_as_usage_error():
            options = read(Options, parsed)
            if run.compare is not None:
                handle = self._handle(name) if name or deployments() else None
                return self._keep(compare_runs(stored_in(handle, folder), *run.compare), run, output)
        if cell is not None:
            options = dataclasses.replace(
                options, values=run_body(self.shell, cell, visible_variables(self.shell)).value
            )
            if options.values is None:
                raise UsageError("the cell's last expression must give the rows to send")
        view = None if output.quiet else BenchmarkView(self.shell)
        result: AnyResult | None = None
        try:
            with wrong_options_as_usage_error():
                if url is not None:
                    result = load_url(url, run, options, folder, view)
                else:
                    result = self._handle(name).run_benchmark(options, view)
        finally:
            if view is not None:
                view.finish(result)
        return self._keep(result, run, output)

    @line_cell_magic
    @with_options(ServedModel, *AB_OPTIONS, AskOptions, EndOptions, Output)
    def abtest(self, parsed: argparse.Namespace, cell: str | None = None) -> ABTest | None:
        """Compare two versions under real traffic: split it, observe, and reach a verdict.

        `%abtest NAME --a 1 --b 2` begins and returns at once: the traffic comes from elsewhere, and `%dashboard` shows
        how it goes. With `--values VAR`, or as `%%abtest` with the rows of the cell's last expression, the magic
        sends these rows to the model until there is a verdict. `--stop`, `--promote` and `--rollback` end it. `%abtest
        NAME` alone shows the latest one.
        """
        how, output = read(EndOptions, parsed).how, read(Output, parsed)
        if how is not None and given(parsed, TestedVersions):
            raise UsageError(f"--{how} ends the experiment that runs; leave --a and --b out")
        variables = visible_variables(self.shell)
        values = look_up_variables(variables, AskOptions, given(parsed, AskOptions)).get("values")
        if cell is not None:
            values = run_body(self.shell, cell, variables).value
            if values is None:
                raise UsageError("the cell's last expression must give the rows to send")
        view = None if output.quiet else ExperimentView(self.shell)
        with wrong_options_as_usage_error():
            handle = self._served(parsed)
            test = handle.ended_test(how) if how is not None else run_abtest(handle, parsed, values, view)
        return self._output(test, output)

    @line_magic
    @with_options(ServedModel, ReplayOptions, ReplayedRequests, AgreementOptions, Output)
    def replay(self, parsed: argparse.Namespace) -> ReplayResult | None:
        """Send captured requests to a version at the times at which they came; compare outputs and latencies.

        Clients see nothing of it. The same requests go to the version that served them, in turns.
        """
        output = read(Output, parsed)
        view = None if output.quiet else BenchmarkView(self.shell)
        with wrong_options_as_usage_error():
            result = replay(self._served(parsed), parsed, view)
        return self._output(result, output)

    @line_magic
    @with_options(MeasuredModel, VariantOptions, Output)
    def variants(self, parsed: argparse.Namespace) -> VariantsResult | None:
        """Measure smaller and faster forms of a model, with each engine, and show which one `--optimize auto` takes.

        Nothing is deployed, the model is not changed, and no files stay.
        """
        output = read(Output, parsed)
        with wrong_options_as_usage_error():
            variables = visible_variables(self.shell)
            result = measure(self.shell, parsed, variables, self._handle, is_quiet=output.quiet)
        return self._output(result, output)

    def _keep(self, result: AnyResult, run: RunOptions, output: Output) -> AnyResult | None:
        if run.save is not None:
            with wrong_options_as_usage_error():
                save(result, run.save)
        return self._output(result, output)

    def _output(self, result: T, output: Output) -> T | None:
        """What a magic returns; binds it to the variable of `--out` before."""
        if output.out is not None:
            self.shell.user_ns[output.out] = result
        return None if output.quiet else result

    def _model(self, options: DeployedModel, cell: str | None, variables: dict[str, Any]) -> tuple[Any, str | None]:
        """The model and its default name; runs the cell's body, which adds to the variables."""
        name = options.name
        result = run_body(self.shell, cell, variables) if cell is not None else None
        if options.model is not None:
            model = look_up_model(variables, options.model)
            return model, name or _default_name(model, options.model)
        if result is None or result.value is None:
            raise UsageError(
                "%%deploy without MODEL deploys the value of the cell's last expression, but this cell ends without "
                "one; name the variable: %%deploy MODEL"
            )
        if name is None and result.name is None:
            raise UsageError("the model of the cell's last expression needs a name: %%deploy --name NAME")
        return result.value, name or result.name

    def _deploy(self, model: Any, name: str | None, options: dict[str, Any], *, is_quiet: bool) -> Deployment:
        shown = progress_view(self.shell, f"deploying {name}", is_quiet=is_quiet)
        with shown as progress, wrong_options_as_usage_error():
            return deploy(model, name, progress=progress, **options)

    def _base_path(self, name: str | None) -> str | None:
        """The folder of a model; one that is served stays where it is, even when the default has changed."""
        is_served = any(handle.name == name for handle in deployments())
        return None if is_served else self.base_path

    def _served(self, parsed: argparse.Namespace) -> Deployment:
        return self._handle(read(ServedModel, parsed).name)

    def _handle(self, name: str | None) -> Deployment:
        if name is not None:
            return deployment(name)
        handles = deployments()
        if len(handles) == 1:
            return handles[0]
        if not handles:
            raise ModelNotFound("nothing is served in this kernel", hint="%deploy MODEL, or %serving --resume")
        raise UsageError(f"which model? served are {', '.join(handle.name for handle in handles)}")

    def _switch(self, handle: Deployment, switch: Callable[[], object]) -> None:
        before = handle.version
        started_s = time.perf_counter()
        with wrong_options_as_usage_error():
            switch()
        took_ms = (time.perf_counter() - started_s) * 1e3
        print(f"{handle.name}: version {handle.version} answers now (before: {before}), switched in {took_ms:.1f} ms")


def _default_name(model: Any, word: str) -> str:
    """The name of a model that a word names: that of the file or in MLflow, or `model` for `trainer.model`."""
    from ..scaleout.mlflow import uris

    if uris.is_uri(word):
        return uris.name_of(word)
    return name_of(model) if isinstance(model, Path) else word.rsplit(".", maxsplit=1)[-1]
