"""`tfserve-nb serve`: stand in for `tensorflow_model_server`.

All models are loaded before the ports open. SIGTERM and SIGINT let running requests finish and end the process with 0.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from .._version import __version__
from ..api.deployment import Deployment
from ..dashboards.web import WebPages
from ..errors import ServingError
from ..experiment.engine.experiments import Experiments
from ..protos.postponed import postpone
from ..server import open_files
from ..server.admin.web_dashboard import PATH as DASHBOARD_PATH
from ..server.child import READY
from ..server.handle import ServerHandle
from ..server.settings import num_cores
from ..server.telemetry.prometheus import Monitor
from ..server.telemetry.request_log import RequestLog
from ..server.thread import ServerFeatures, ServerThread
from ..serving.configured import ConfiguredModels
from ..serving.core import ServingCore
from ..serving.engines.accelerated import SavedModelLoader
from ..serving.models.model_config import ModelConfig, ReloadLimits
from ..types import VersionStatus
from .certificates import CertificateWatch
from .openness import openness
from .private_files import PrivateLink, readable_by_others
from .serve_flags import EXIT_FAILED, ignored_flags, parse_serve
from .serve_plan import ServePlan, make_plan

_log = logging.getLogger("tfserve_nb.serve")
JOIN_S = 1.5
PARENT_WATCH_S = 0.5
SECRET_FILES = ("auth_token_file", "ssl_config_file", "rest_api_ssl_config_file")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """A signal asked the process to end."""


def serve(arguments: list[str]) -> int:
    """Serve until a signal comes.

    Args:
        arguments: what stands after `serve`.

    Returns:
        0 after a signal, 255 when the server cannot start.
    """
    flags = parse_serve(arguments)
    if flags.version:
        print(f"TensorFlow ModelServer: tfserve_nb {__version__}")
        print(f"TensorFlow Library: {importlib.metadata.version('tensorflow')}")
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's errors stay; what it tells of itself is no news
    postpone()  # versions that an engine runs need no more of TensorFlow than its messages
    log_to_stderr()
    open_files.raise_limit()
    secrets = {name: getattr(flags, name) for name in SECRET_FILES}
    for line in (*ignored_flags(arguments), *readable_by_others(secrets)):
        _log.warning("%s", line)
    server: ModelServer | None = None
    signals = Signals()
    try:
        plan = make_plan(flags)
        if flags.rest_api_port and flags.rest_api_port == flags.port:
            _log.error(
                "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
                "Skipped exporting HTTP/REST API."
            )
        if plan.parent_pid:
            end_with_parent(plan.parent_pid)
        server = ModelServer(plan)
        server.start()
        _log.info("Entering the event loop ...")
        signals.wait()
    except ServingError as error:
        return failed("Failed to start server", error)
    except Terminated:
        _log.info("Stopping: running requests may finish")
    finally:
        if server is not None:
            server.stop()
            _log.info("Stopped")
    return 0


def failed(what: str, error: ServingError) -> int:
    """Say in the log and on standard output why a command ends, and return its exit code."""
    _log.error("%s", error.message)
    print(f"{what}. Error: {error.code}: {error.message}", flush=True)
    if error.hint:
        print(f"  try: {error.hint}", flush=True)
    return EXIT_FAILED


class ModelServer:
    """Core, configuration and server of one process.

    Args:
        plan: what to serve, and how.
    """

    def __init__(self, plan: ServePlan) -> None:
        self._plan = plan
        self._core = ServingCore(SavedModelLoader(plan.session), num_run_threads=plan.num_run_threads)
        has_metrics = plan.settings.metrics_path is not None
        monitor = Monitor(self._states, self._core.copies.counts) if has_metrics else None
        if monitor is not None:
            self._core.observers.add(monitor)
            self._core.observers.add(monitor.tf)
        self._experiments = Experiments(self._core)
        self._models = ConfiguredModels(self._core, plan.follow)
        self._configs: tuple[ModelConfig, ...] = ()
        on_logged = (lambda *_: None) if monitor is None else monitor.tf.on_logged
        self._request_log = RequestLog(self._models.logging_of, on_logged)
        features = ServerFeatures(
            reload=self._reload_for_client,
            monitor=monitor,
            request_log=self._request_log,
            admin=self._core,
            dashboard=_web_pages(self._core, self._experiments) if plan.dashboard else None,
            experiments=self._experiments,
        )
        self._server = ServerThread(self._core, plan.settings, features)
        self._link: PrivateLink | None = None
        grpc_tls = None if plan.settings.grpc is None else plan.settings.grpc.tls
        self._certificates = CertificateWatch(plan.settings.tls, grpc_tls, self._server.renew_certificates)
        self._poller = ConfigPoller(self._reload, plan.poll_configs_s)

    def start(self) -> None:
        """Load all models, then open the ports.

        Raises:
            ServingError: why that cannot be.
        """
        plan = self._plan
        self._core.expect(plan.resuming)
        self._core.start()
        self._configs = plan.read_configs() or ()
        self._models.apply(self._configs, at_start=True)
        self._models.start()
        self._request_log.start()
        self._server.start()
        self._server.log.addHandler(_stderr(logging.WARNING))
        grpc = plan.settings.grpc
        if grpc is not None and grpc.port is not None:
            _log.info("Running gRPC ModelServer at %s:%d ...", grpc.host, self._server.grpc_port)
        if grpc is not None and grpc.socket_path:
            _log.info("Running gRPC ModelServer at unix:%s ...", grpc.socket_path)
        if plan.settings.port is not None:
            _log.info("Exporting HTTP/REST API at:localhost:%d ...", self._server.port)
        _log.info("Workers for HTTP, gRPC and codecs: %s, on %d cores", plan.settings.workers or "none", num_cores())
        if plan.dashboard:
            self._show_dashboard()
        _log.log(*openness(plan, self._configs))
        self._poller.start()
        self._certificates.start()
        if plan.ready_fd:
            os.write(plan.ready_fd, READY)

    def stop(self) -> None:
        """Finish running requests, close the ports, free the models. Idempotent, bounded."""
        self._poller.stop()
        self._certificates.stop()
        self._models.stop()
        self._server.stop(self._plan.drain_s)
        self._request_log.stop()
        self._experiments.stop()
        self._core.stop()
        if self._link is not None:
            self._link.close()

    def _show_dashboard(self) -> None:
        """Say where it is; the token that was made for it stays in a file, and the page asks for one that was given."""
        settings = self._plan.settings
        scheme = "http" if settings.tls is None else "https"
        host = "127.0.0.1" if settings.host in ("", "0.0.0.0", "::") else settings.host  # noqa: S104 - compared
        url = f"{scheme}://{host}:{self._server.port}{DASHBOARD_PATH}"
        _log.info("Dashboard: %s", url)
        if settings.admin_token:
            self._link = PrivateLink(f"{url}#token={settings.admin_token}")
            _log.info("Open the link in %s, which holds the dashboard's token and only you can read", self._link.path)

    def _states(self) -> dict[str, tuple[VersionStatus, ...]]:
        return {name: self._core.model_status(name).versions for name in self._core.names}

    def _reload(self) -> None:
        configs = self._plan.read_configs()
        if configs is None:
            _log.info("Taking no action for empty config.")
        else:
            self._configs = configs
            self._models.apply(configs)

    def _reload_for_client(self, configs: tuple[ModelConfig, ...]) -> None:
        """Follow what a client sent, within what the owner's configuration names unless clients are known."""
        extra = self._plan.reload_base_paths
        if extra is not None:
            configs = ReloadLimits.of(self._configs, extra).restricted(configs)
        self._models.apply(configs)


def _web_pages(core: ServingCore, experiments: Experiments) -> WebPages:
    server = ServerHandle("standalone", core, experiments)
    return WebPages(lambda name: Deployment(name, server))


class ConfigPoller:
    """Reads a configuration file again and again, and follows its changes.

    Args:
        reload: reads and follows it.
        wait_s: seconds between two readings; 0 for never.

    Thread: `tfserve-config-poller`, a daemon.
    """

    def __init__(self, reload: Callable[[], None], wait_s: float) -> None:
        self._reload = reload
        self._wait_s = wait_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the file from now on."""
        if self._wait_s > 0:
            self._thread = threading.Thread(target=self._work, name="tfserve-config-poller", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent, bounded."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _work(self) -> None:
        last_error = ""
        while not self._stop.wait(self._wait_s):
            try:
                self._reload()
                last_error = ""
            except ServingError as error:
                # What was served before still is; the file may be half-written.
                if error.message != last_error:
                    last_error = error.message
                    _log.error("PollFilesystemAndReloadConfig failed: %s", last_error)
            except Exception:  # noqa: BLE001 - a defect of ours; the file is read again later
                _log.exception("the configuration could not be followed")


def end_with_parent(pid: int) -> None:
    """End this process when `pid` is no longer its parent.

    Thread: `tfserve-parent-watch`, a daemon, looks; it stays to the end.
    """

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(PARENT_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="tfserve-parent-watch", daemon=True).start()


class Signals:
    """SIGTERM and SIGINT raise `Terminated` on the main thread, once; a second one ends the process at once.

    A signal may reach any thread, but Python handles it on the main one, which has to wake up for it: that is what the
    pair of sockets is for.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno())
        for number in _SIGNALS:
            signal.signal(number, self._terminate)

    def wait(self) -> None:
        """Wait for a signal."""
        while True:
            self._reader.recv(1)

    @staticmethod
    def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        raise Terminated


def log_to_stderr() -> None:
    """Print what a command tells."""
    logger = logging.getLogger("tfserve_nb")
    logger.setLevel(logging.INFO)
    logger.addHandler(_stderr(logging.INFO))


def _stderr(level: int) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d: %(levelname).1s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler
