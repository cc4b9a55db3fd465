"""Pytest that keeps a journal and leaves out the tests that its journal says have run.

Usage: python tools/journalled_pytest.py JOURNAL [pytest arguments]

Started by guarded_pytest.py, with which it also ends.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import journal
import process_tree
import pytest

NO_LIMIT_S = 600.0
"""For a test that pytest-timeout has no limit for."""


class JournalPlugin:
    """Writes what happens; for an earlier process that died, goes on after the test that ended it.

    Args:
        path: the journal; what stands in it already comes from processes before this one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        before = journal.Journal(path)
        before.read()
        self.finished = frozenset(before.finished)
        journal.write(path, "begin")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what has run."""
        done = [item for item in items if item.nodeid in self.finished]
        if done:
            config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item.nodeid not in self.finished]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note the start of a test with its limit, and its end."""
        journal.write(self.path, "start", test=item.nodeid, limit_s=_limit_s(item))
        result = yield
        journal.write(self.path, "finish", test=item.nodeid)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what is neither a setup nor a clean-up that went well."""
        if report.passed and report.when != "call":
            return
        result: str = report.outcome
        if hasattr(report, "wasxfail"):
            result = "xfailed" if report.skipped else "passed"
        elif report.failed and report.when != "call":
            result = "error"
        journal.write(self.path, "report", test=report.nodeid, result=result, reason=_reason(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that cannot be imported, or that skips itself."""
        if not report.passed:
            result = "error" if report.failed else "skipped"
            journal.write(self.path, "report", test=report.nodeid, result=result, reason=_reason(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Note that every test had its turn."""
        journal.write(self.path, "end")


def _limit_s(item: pytest.Item) -> float:
    """How long pytest-timeout lets a test run."""
    marker = item.get_closest_marker("timeout")
    given = [*marker.args, *marker.kwargs.values()] if marker else []
    given += [item.config.getoption("timeout", None), item.config.getini("timeout")]
    return next((float(limit) for limit in given if limit), NO_LIMIT_S)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """One line of why it is not simply passed."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return f"{Path(report.longrepr[0]).name}:{report.longrepr[1]}: {report.longrepr[2]}"
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr or "").strip().split("\n")[0]


if __name__ == "__main__":
    process_tree.end_with_parent(signal.SIGKILL)
    sys.exit(pytest.main(sys.argv[2:], plugins=[JournalPlugin(Path(sys.argv[1]))]))
