"""A version on trial: what warm-up tells about whether it can answer at all, and whether with numbers.

A model that fails on every row would take the traffic from one that answers. Rows that were made up may not suit a
model that is right, so a failure says something only when all of them fail; then rows of the user are needed.
NaN is an answer, and may be the right one; users are told of outputs that held nothing else.

Thread: the manager's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ServingError
from ...export.check import is_all_nan, made_up_batches, nan_notes
from ...types import DEFAULT_SIGNATURE, SignatureDefs, SignatureSpec, Tensors
from ..engines.accelerated import EngineServable
from ..engines.servable import Servable


@dataclass(frozen=True, slots=True)
class Findings:
    """What the rows of warm-up showed.

    Attributes:
        problem: why the version cannot answer, in words; "" when it can, as far as is known.
        nan_outputs: the outputs that held nothing but NaN.
    """

    problem: str = ""
    nan_outputs: Sequence[str] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What users have to know of it, one line each."""
        cannot = f"it cannot answer: no row that was tried could be run: {self.problem}"
        return (*nan_notes(self.nan_outputs), *([cannot] if self.problem else []))


NOTHING_FOUND = Findings()


class Trial:
    """A servable that notes whether it answered.

    Args:
        servable: runs.

    Attributes:
        servable: the same.
    """

    def __init__(self, servable: Servable) -> None:
        self.servable = servable
        self.signatures: Mapping[str, SignatureSpec] = servable.signatures
        self.signature_defs: SignatureDefs = servable.signature_defs
        self.effects = servable.effects
        self._answered: set[str] = set()
        self._problems: dict[str, ServingError] = {}
        self._is_nan: dict[tuple[str, str], bool] = {}  # (signature, output) -> whether it held nothing else so far

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Run one batch; see `Servable.run`."""
        try:
            outputs = self.servable.run(signature, inputs)
        except ServingError as error:
            self._problems.setdefault(signature, error)
            raise
        self._note(signature, outputs)
        return outputs

    def run_at_once(self, signature: str, inputs: Tensors) -> Tensors:
        """The same without TensorFlow, if an engine runs the signature. Raises whatever its runtime raises."""
        assert isinstance(self.servable, EngineServable)  # noqa: S101 - no other has decisions that are noted
        outputs = self.servable.run_at_once(signature, inputs)
        self._note(signature, outputs)
        return outputs

    def is_nan(self, signature: str) -> bool:
        """Whether some output of a signature held nothing but NaN so far."""
        return any(is_nan for (name, _), is_nan in self._is_nan.items() if name == signature)

    def _note(self, signature: str, outputs: Tensors) -> None:
        self._answered.add(signature)
        for name, array in outputs.items():
            if array.size and self._is_nan.get((signature, name), True):
                self._is_nan[signature, name] = is_all_nan(array)

    def restore(self) -> None:
        """See `Servable.restore`."""
        self.servable.restore()

    def close(self) -> None:
        """See `Servable.close`."""
        self.servable.close()

    def findings(self, *, is_trusted: bool) -> Findings:
        """What was seen.

        Args:
            is_trusted: whether a version that answered nothing is served all the same.
        """
        problem = "" if is_trusted else self._problem()
        return Findings(problem, tuple(dict.fromkeys(name for (_, name), is_nan in self._is_nan.items() if is_nan)))

    def _problem(self) -> str:
        """Why the version cannot answer, in words; "" when it answered something, or nothing was tried.

        Clients use the default signature; where there is none, any will do.
        """
        names = [DEFAULT_SIGNATURE] if DEFAULT_SIGNATURE in self.signatures else list(self.signatures)
        if self._answered & set(names) or not self._problems.keys() & set(names):
            return ""
        for name in names:
            for batch in () if self.effects.outside_ops else made_up_batches(self.signatures[name]):
                try:
                    self.run(name, batch)
                except ServingError:
                    continue
                return ""
        return next(self._problems[name].message for name in names if name in self._problems)
