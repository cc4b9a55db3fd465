"""A SavedModel version whose signatures may be run by engines, with TensorFlow behind them.

TensorFlow's session is opened when something needs it: a signature without an engine, a comparison, a run that an
engine could not do. What runs a signature is one pointer, which may be moved while requests are answered.

A run in which an engine fails is TensorFlow's, which knows best whether the request is at fault: its error is the
answer. Where TensorFlow answers, the engine is not used for that signature any more.

Thread: `run` on any; the rest on one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...export.check import VersionFacts
from ...export.reasons import innermost
from ...protos.postponed import loaded
from ...types import EngineMeasurement, Tensors
from .artefacts import EngineFolder
from .engine import TENSORFLOW, Engine, gpu_of, num_threads
from .saved_model.devices import is_processor
from .saved_model.session import DEFAULT_OPTIONS, SavedModelServable, SessionOptions, read_facts
from .servable import Servable
from .single_file.loading import load_single_file
from .strange import LeftToTensorFlow

RUNS_TO_CHECK = 1000
"""For so many runs it is looked at an engine at work."""

_log = logging.getLogger(__name__)


class EngineServable:
    """A SavedModel version, run by TensorFlow until `use` names engines.

    Args:
        path: the version folder.
        device: TensorFlow device for the graph, or None.
        options: tags and limits.

    Attributes:
        path: the same.
        engine_folder: what was converted for it.
        tags: of the graph.
        num_threads: of one run of an engine.
        gpu: the number of the GPU that `device` names; None for the processor.
        measurements: what was measured when engines were chosen.
        notes: what users have to know of its engines, one line each.
        runs_to_check: how many of the next runs of engines are to be looked at now and then; see `versions.live_check`.

    Raises:
        ModelNotFound, FailedPrecondition: as `SavedModelServable`.
    """

    def __init__(self, path: Path, device: str | None = None, options: SessionOptions = DEFAULT_OPTIONS) -> None:
        self.path = path
        self.engine_folder = EngineFolder(path, options.tags)
        self.tags = options.tags
        self.num_threads = _num_threads(options)
        self.gpu = gpu_of(device)
        self.measurements: tuple[EngineMeasurement, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.runs_to_check = 0
        self._facts = read_facts(path, options)
        self.signatures = self._facts.signatures
        self.signature_defs = self._facts.signature_defs
        self.effects = self._facts.effects
        self.is_stoppable = self._facts.is_stoppable
        self._device = device
        self._options = options
        self._answering: dict[str, Engine] = {}
        self._session: SavedModelServable | None = None
        self._is_on_processor = False  # TensorFlow knows where its session runs once there is one
        self._lock = threading.Lock()

    def session(self) -> SavedModelServable:
        """TensorFlow's session, opened if need be.

        Raises:
            NotAvailable: if TensorFlow cannot load the version.
        """
        found = self._session
        if found is None:
            with self._lock:
                found = self._session
                if found is None:
                    found = self._session = SavedModelServable(self.path, self._device, self._options, self._facts)
                    self._is_on_processor = is_processor(self._device)
        return found

    def engine_of(self, signature: str) -> str:
        """What runs a signature."""
        engine = self.answering(signature)
        return TENSORFLOW if engine is None else engine.name

    def use(
        self, engines: Mapping[str, Engine], measurements: Sequence[EngineMeasurement], notes: Sequence[str] = ()
    ) -> None:
        """Let engines run their signatures from now on, and TensorFlow the others.

        Args:
            engines: signature -> engine.
            measurements: what was measured when they were chosen.
            notes: what users have to know.
        """
        runs_to_check = RUNS_TO_CHECK if engines and has_tensorflow() else 0
        if runs_to_check or engines.keys() < self.signatures.keys():
            self.session()  # before the pointer moves: no request has to wait until it is open
        with self._lock:  # an engine may fall back just now
            self._answering, self.runs_to_check = dict(engines), runs_to_check
            self.measurements, self.notes = tuple(measurements), tuple(notes)
        self._spare_session()

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one signature; see `Servable.run`."""
        engine = self._answering.get(signature)
        if engine is None:
            return (self._session or self.session()).run(signature, inputs)
        try:
            return engine.run(inputs)
        except LeftToTensorFlow:
            return self.session().run(signature, inputs)
        except Exception as error:  # noqa: BLE001 - runtimes raise types of their own; TensorFlow decides what it was
            outputs = self.session().run(signature, inputs)
            self.fall_back(signature, engine, f"it failed where TensorFlow answers: {innermost(error)}")
            return outputs

    def run_at_once(self, signature: str, inputs: Tensors) -> Tensors:
        """The same on a thread that must not wait for TensorFlow to be loaded.

        Raises:
            Exception: what `run` may still be able to answer.
        """
        runs = self._answering.get(signature)
        if runs is not None:
            return runs.run(inputs)
        session = self._session
        if session is None or not self._is_on_processor:
            raise LeftToTensorFlow
        return session.run(signature, inputs)

    def run_within(self, signature: str, inputs: Tensors, limit_s: float) -> Tensors:
        """Run one signature, and stop it at its limit where TensorFlow runs it; see `StoppableServable`.

        No engine is used for a graph that still has a loop.
        """
        if signature in self._answering:
            return self.run(signature, inputs)
        return self.session().run_within(signature, inputs, limit_s)

    def restore(self) -> None:
        """See `Servable.restore`; what engines run changes nothing."""
        session = self._session
        if session is not None:
            session.restore()
            self._spare_session()

    def close(self) -> None:
        """Free the session and the engines, once no run uses them any more."""
        self.engine_folder.close()
        self._answering = {}
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def answering(self, signature: str) -> Engine | None:
        """The engine that runs a signature; None for TensorFlow."""
        return self._answering.get(signature)

    def takes_one_core(self, signature: str) -> bool:
        """Whether a run of a signature leaves the other cores to other runs."""
        engine = self._answering.get(signature)
        return engine is not None and engine.num_threads == 1 and self.gpu is None

    def checked(self) -> None:
        """A run counts as seen; after the last one the session is no longer needed for that."""
        self.runs_to_check = max(0, self.runs_to_check - 1)
        if not self.runs_to_check:
            self._spare_session()

    def _spare_session(self) -> None:
        """Let go of a session that nothing needs; it is opened again when something does."""
        is_needed = self.runs_to_check or self._answering.keys() < self.signatures.keys()
        if self._session is not None and not is_needed:
            # Not closed: a run may be on its way in it, which holds the last reference then. Freeing it takes a while,
            # and this thread may have requests to answer.
            held, self._session = [self._session], None
            threading.Thread(target=held.clear, name="tfserve-unload", daemon=True).start()

    def fall_back(self, signature: str, engine: Engine, reason: str, *, is_wrong: bool = False) -> None:
        """Let TensorFlow run a signature from now on.

        Args:
            signature: the signature's name.
            engine: what ran it; nothing happens if something else does by now.
            reason: why, in words.
            is_wrong: whether it answered otherwise than TensorFlow: noted, whoever loads the version later may have no
                TensorFlow to see it again.
        """
        with self._lock:
            if self._answering.get(signature) is not engine:
                return
            self._answering = {name: other for name, other in self._answering.items() if name != signature}
            note = f"{signature} is run by TensorFlow, no longer by {engine.name}: {reason}"
            self.notes = (*self.notes, note)
            self.measurements = tuple(_without(row, signature, engine.name, reason) for row in self.measurements)
        _log.warning("%s: %s", self.path, note)
        if is_wrong:
            self.engine_folder.update(lambda record: record.without(engine.name, signature, reason))


def _num_threads(options: SessionOptions) -> int:
    """Threads of one run that TensorFlow does not carry out."""
    return options.intra_op_threads or num_threads(options.limited_threads)


def has_tensorflow() -> bool:
    """Whether this process has TensorFlow anyway: nothing imports it only to look at an engine at work.

    What an engine was compared on before it was chosen is noted in the version's folder, with the machine.
    """
    return loaded() is not None


def _without(row: EngineMeasurement, signature: str, engine: str, reason: str) -> EngineMeasurement:
    if row.signature != signature or row.engine not in (TENSORFLOW, engine):
        return row
    if row.engine == TENSORFLOW:
        return replace(row, reason="", is_chosen=True)
    return replace(row, reason=reason, is_chosen=False, agrees=False)


class SavedModelLoader:
    """The `Loader` for version folders.

    Args:
        options: tags and limits.
    """

    def __init__(self, options: SessionOptions = DEFAULT_OPTIONS) -> None:
        self._options = options

    def __call__(self, path: Path, device: str | None) -> Servable:
        """Load a version, which TensorFlow runs for now."""
        servable = self.unopened(path, device)
        if isinstance(servable, EngineServable):
            servable.session()
        return servable

    def facts(self, path: Path) -> VersionFacts:
        """What is known of a version before it is run."""
        with contextlib.closing(self.unopened(path, None)) as servable:
            return VersionFacts(servable.signatures, servable.effects)

    def unopened(self, path: Path, device: str | None) -> Servable:
        """A version that TensorFlow has not loaded yet; one that is a single file of another runtime needs none."""
        options = self._options
        file = load_single_file(path, _num_threads(options), prefers_tflite=options.prefers_tflite)
        return EngineServable(path, device, options) if file is None else file
