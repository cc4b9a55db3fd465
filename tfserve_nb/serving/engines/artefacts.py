"""What was converted for engines, and what was seen of it: files in the version's folder.

They lie in `assets.extra/tfserve_nb_engines/`, where TensorFlow Serving looks at nothing.

`engines.json` says what each file was made from and by what. It is written last and as a whole, and a file counts only
if it is the one that `engines.json` names: what is damaged, was made by other versions or from another graph, is made
anew or left alone.

Thread: any; also safe against other processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from ...export.signatures import SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE
from ...serialization import from_json, to_json
from ...temporary import TemporaryFolder, replacing
from .choice import Findings

FOLDER = Path("assets.extra", "tfserve_nb_engines")
RECORD_FILE = "engines.json"
FORMAT = 1
_INDEX_FILE = Path("variables", "variables.index")  # it holds a checksum of each variable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Artefact:
    """What became of one conversion.

    Attributes:
        file: its name in the folder of its engine; "" when there is none.
        sha256: of its content.
        problem: why there is none, or why it cannot be loaded, in words.
    """

    file: str = ""
    sha256: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether rows of a signature may run together, as it was decided once; see `versions.noted_sharing`.

    Attributes:
        engine: what ran them.
        sizes: the batch sizes that were tried.
        rows: what was known of the user's rows, as digests.
        is_allowed: whether they may.
        reason: why not, in words.
        pads_lengths: whether what is added to the end of an input changes no answer; None when that was not tried.
        package: the version of this package that decided it.
    """

    engine: str
    sizes: tuple[int, ...]
    rows: tuple[str, ...]
    is_allowed: bool
    reason: str
    pads_lengths: bool | None
    package: str


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What is known of the engines for one version.

    Attributes:
        fingerprint: of the SavedModel that was converted.
        tags: of the graph in it.
        options: engine -> what its converter was told.
        versions: distribution -> version, of what converted it and ran it.
        artefacts: engine -> signature -> what became of it.
        findings: signature -> what was seen of the engines.
        decisions: signature -> whether its rows may run together, the newest first.
        machine: where the times were measured; see `this_machine`.
        format: of the file.
    """

    fingerprint: str
    tags: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    artefacts: Mapping[str, Mapping[str, Artefact]] = field(default_factory=dict)
    findings: Mapping[str, Findings] = field(default_factory=dict)
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)
    machine: str = ""
    format: int = FORMAT

    def without(self, engine: str, signature: str, problem: str) -> EngineRecord:
        """The same, with an engine whose answers to a signature were seen to differ, and why."""
        found = self.findings[signature]
        ms = {name: times for name, times in found.ms.items() if name != engine}
        compared = {**found.compared, engine: False}
        found = replace(found, ms=ms, problems={**found.problems, engine: problem}, compared=compared)
        return replace(self, findings={**self.findings, signature: found})

    def without_failures(self) -> EngineRecord:
        """The same without the conversions that failed: there may be more memory or time now."""
        whole = {
            engine: {name: made for name, made in by_name.items() if made.file}
            for engine, by_name in self.artefacts.items()
        }
        return replace(self, artefacts=whole)


class EngineFolder:
    """Where what belongs to a version's engines lies: beside it, or elsewhere for as long as this process runs.

    Args:
        version_dir: the version's folder; where it cannot be written, nothing is kept for others.
        tags: of the graph in it.
    """

    def __init__(self, version_dir: Path, tags: Sequence[str] = ("serve",)) -> None:
        self._version_dir = version_dir
        self._tags = tuple(tags)
        self._path = version_dir / FOLDER
        self._updating = threading.Lock()
        self._temporary: TemporaryFolder | None = None

    def read(self) -> EngineRecord | None:
        """What is known, or None when there is nothing, or nothing that can be used."""
        path = self._path / RECORD_FILE
        try:
            record = from_json(json.loads(path.read_text("utf-8")), EngineRecord)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            _log.warning("%s cannot be read and is ignored: %s", path, error)
            return None
        if record.format != FORMAT:
            _log.warning("%s has the format %s, not %s, and is ignored", path, record.format, FORMAT)
            return None
        if record.fingerprint != fingerprint(self._version_dir):
            _log.warning("%s belongs to another graph than %s and is ignored", path, self._version_dir)
            return None
        if sorted(record.tags) != sorted(self._tags):
            _log.warning("%s was made from the graph with the tags %s and is ignored", path, list(record.tags))
            return None
        return record

    def write(self, record: EngineRecord) -> None:
        """Note what is known."""
        with replacing(self._writable() / RECORD_FILE) as partial:
            partial.write_text(json.dumps(to_json(record), indent=1), "utf-8")

    def update(self, change: Callable[[EngineRecord], EngineRecord]) -> None:
        """Change what is known; where it cannot be written, it is found out again the next time."""
        try:
            with self._updating:
                record = self.read()
                if record is not None:
                    self.write(change(record))
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path / RECORD_FILE, error.strerror or error)

    def store(self, engine: str, made: Path, signature: str) -> Artefact:
        """Take over a file that was converted."""
        folder = self._writable() / engine
        folder.mkdir(exist_ok=True)
        name = file_name(signature) + made.suffix
        content = made.read_bytes()
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
        return Artefact(name, hashlib.sha256(content).hexdigest())

    def file_of(self, engine: str, artefact: Artefact) -> Path:
        """The file of an artefact that is whole.

        Raises:
            ValueError: why it is not, in words.
        """
        path = self._path / engine / artefact.file
        if not path.exists():  # what was converted before this process lies where it cannot be written
            path = self._version_dir / FOLDER / engine / artefact.file
        if not artefact.file or Path(artefact.file).name != artefact.file:
            raise ValueError(artefact.problem or "it has no file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(content).hexdigest() != artefact.sha256:
            raise ValueError(f"{path} is damaged")
        return path

    def close(self) -> None:
        """Remove what was kept elsewhere. Idempotent."""
        if self._temporary is not None:
            self._temporary.close()

    def _writable(self) -> Path:
        """The folder; one for temporary files where the version's own cannot be written."""
        if self._temporary is None:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
                is_writable = os.access(self._path, os.W_OK)
            except OSError:
                is_writable = False
            if not is_writable:
                _log.info("%s cannot be written: what is converted is kept until this process ends", self._path)
                self._temporary = TemporaryFolder("tfserve-engines")
                self._path = self._temporary.path
        return self._path


def file_name(signature: str) -> str:
    """A name of a file for a signature, whatever it is called."""
    plain = re.sub(r"[^\w-]", "_", signature, flags=re.ASCII)[:60]
    return plain if plain == signature else f"{plain}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}"


def fingerprint(version_dir: Path) -> str:
    """Of the graph and the weights of a SavedModel."""
    digest = hashlib.sha256()
    for name in (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE, _INDEX_FILE):
        path = version_dir / name
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def this_machine() -> str:
    """The processor and how many of its cores there are: what measured times depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
