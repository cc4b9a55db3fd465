"""Starts and stops the server: HTTP and gRPC on an event loop in a thread of their own.

Thread: `start` and `stop` may be called from any; all else in here runs on `tfserve-server`, a daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import Any  # asyncio's contexts

from ..errors import ServerFailed, ServingError
from ..experiment.admin import ExperimentAdmin
from ..serving.admin import ModelAdmin
from ..serving.backend import InferenceBackend
from ..threads import hide_from_debuggers
from . import interpreter, tls
from .admin.handlers import admin_routes, admin_values
from .admin.web_dashboard import DashboardPages, dashboard_routes
from .budget import ByteBudget
from .calls import Calls
from .config_files import TlsFiles
from .event_loop import new_loop
from .grpc.listener import GrpcListener, import_stubs
from .grpc.model_service import Reload
from .http.listener import HttpListener
from .rest.app import make_application
from .rest.entrance import guarded
from .rest.fast_path import fast_path
from .settings import ServerSettings
from .telemetry.log import open_log
from .telemetry.prometheus import Monitor
from .telemetry.request_log import RequestLog
from .workers.listener import WorkerListener

START_LIMIT_S = 20.0
IDLE_LOOK_S = 1.0
DRAIN_S = 0.8
JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class ServerFeatures:
    """What a server offers beside inference; None for what it does not.

    Attributes:
        reload: follows a new configuration, for gRPC's HandleReloadConfigRequest; None for a server that follows none.
        monitor: what the metrics path answers with, or None.
        request_log: gets answered requests, or None.
        admin: what the admin API administers, or None for a server without one.
        dashboard: draws the dashboard's web page, or None for a server without one.
        experiments: those of the admin API, or None for a server without any.
    """

    reload: Reload | None = None
    monitor: Monitor | None = None
    request_log: RequestLog | None = None
    admin: ModelAdmin | None = None
    dashboard: DashboardPages | None = None
    experiments: ExperimentAdmin | None = None


class ServerThread:
    """One server in a thread.

    Args:
        backend: the core that answers.
        settings: addresses and limits.
        features: what it offers beside inference.

    Attributes:
        port: the TCP port of HTTP; 0 before `start` and without HTTP.
        grpc_port: the TCP port of gRPC; 0 before `start` and without gRPC.
        budget: counts large requests of HTTP and gRPC; workers have their own.
    """

    def __init__(
        self, backend: InferenceBackend, settings: ServerSettings, features: ServerFeatures | None = None
    ) -> None:
        self.settings = settings
        self.log, self.log_ring = open_log()
        self.port = 0
        self.grpc_port = 0
        self._features = features or ServerFeatures()
        self._backend = backend
        self._drain_s = DRAIN_S
        self.budget = ByteBudget(settings.max_bytes_in_flight)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._http: HttpListener | WorkerListener | None = None
        self._grpc: GrpcListener | None = None
        self._error: BaseException | None = None

    @property
    def host(self) -> str:
        """The address that is bound."""
        return self.settings.host

    def start(self) -> None:
        """Bind the ports and start the thread; returns when requests are answered.

        Raises:
            PortInUse: if a port is taken.
            ServerFailed: if an address cannot be bound, a certificate does not do, or the thread does not come up.
        """
        if self.settings.grpc is not None:
            import_stubs()
        http = self._make_listener()
        self.port = 0 if http is None else http.port
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(http, ready), name="tfserve-server", daemon=True)
        hide_from_debuggers(self._thread)
        interpreter.server_starts()
        try:
            self._thread.start()
            is_up = ready.wait(START_LIMIT_S)
            if isinstance(self._error, ServingError):
                raise self._error
            if self._error is not None or not is_up:
                raise ServerFailed(
                    f"the server did not start: {self._error or f'no answer within {START_LIMIT_S:g} s'}",
                    hint="restart the kernel",
                ) from self._error
        except BaseException:
            self.stop()
            if http is not None:
                http.close_socket()
            raise

    def renew_certificates(self, rest: TlsFiles | None, grpc: TlsFiles | None) -> None:
        """Use other certificates for new connections; those that are open stay. Any thread but the server's.

        Args:
            rest: for HTTP; None to keep them.
            grpc: for gRPC; None to keep them.

        Raises:
            ServerFailed: if they do not do; the old ones stay in use.
        """
        for files in (rest, grpc):
            if files is not None:
                tls.check(files)
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._renew(rest, grpc), self._loop).result(START_LIMIT_S)

    async def _renew(self, rest: TlsFiles | None, grpc: TlsFiles | None) -> None:
        if self._http is not None:
            await self._http.renew(rest, grpc)
        if grpc is not None and self._grpc is not None:
            self._grpc.renew(grpc)

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stop listening, let running requests finish, close everything. Idempotent, bounded.

        Args:
            drain_s: how long running requests may take, in seconds.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._drain_s = drain_s
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(drain_s + JOIN_S)
        interpreter.server_stopped()

    def _make_listener(self) -> HttpListener | WorkerListener | None:
        if self.settings.port is None:
            return None
        if self.settings.workers:
            return WorkerListener(self.settings, self._backend, self._features.request_log)
        return HttpListener(self.settings)

    def _run(self, http: HttpListener | WorkerListener | None, ready: threading.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(self._serve(http, ready))
        except BaseException as error:  # noqa: BLE001 - raised again by start()
            self._error = error
        finally:
            ready.set()

    async def _serve(self, http: HttpListener | WorkerListener | None, ready: threading.Event) -> None:
        settings = self.settings
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._log_exception)
        calls = Calls(self._backend, self._loop, self._features.request_log)
        self._http = http
        grpc = self._grpc = await self._start_grpc(calls, http)
        if http is not None:
            application = make_application(settings, self._features.monitor, self._admin_routes())
            front = guarded(fast_path(calls, settings, self.log), calls, settings)
            await http.start(application, self.log, front, self.budget)
            self.log.info("listening on %s:%d", self.host, self.port)
        ready.set()
        while not self._stop.is_set():
            is_idle = not calls.num_running and (http is None or not http.num_running)
            interpreter.collect_when_idle(is_idle=is_idle)
            if is_idle:
                self.budget.give_back_memory()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), IDLE_LOOK_S)
        if http is not None:
            http.stop()
        draining = [] if http is None else [asyncio.create_task(http.drained())]
        if grpc is not None:
            draining.append(asyncio.create_task(grpc.stop(self._drain_s)))
        if draining:
            await asyncio.wait(draining, timeout=self._drain_s)
        if http is not None:
            await http.close()
        for task in draining:
            task.cancel()
        self.log.info("stopped")

    def _admin_routes(self) -> list[tuple[Any, ...]]:
        admin, dashboard = self._features.admin, self._features.dashboard
        values = None if admin is None else admin_values(admin, self.settings, self.log)
        if admin is None or values is None:
            return []
        return [
            *(dashboard_routes(dashboard, values) if dashboard is not None else ()),
            *admin_routes(admin, self._features.experiments, values),
        ]

    async def _start_grpc(self, calls: Calls, http: HttpListener | WorkerListener | None) -> GrpcListener | None:
        settings = http.settings if isinstance(http, WorkerListener) else self.settings
        if settings.grpc is None:
            return None
        features = self._features
        listener = GrpcListener(
            calls,
            settings.grpc,
            token=settings.token,
            budget=self.budget,
            log=self.log,
            reload=features.reload,
            counter_value=(lambda _: None) if features.monitor is None else features.monitor.tf.counter_value,
        )
        await listener.start()
        self.grpc_port = listener.port
        self.log.info("gRPC listening on %s:%d", settings.grpc.host, self.grpc_port)
        return listener

    def _log_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.log.error("%s", context.get("message"), exc_info=context.get("exception"))
