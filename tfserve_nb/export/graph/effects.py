"""What running a version does besides answering: what it writes in itself, what it draws, what it reaches outside.

The one place that says what follows: what may not be done a second time, what comes out different each time, and what
users are told.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # TensorFlow's messages

from ..flow.nodes import GraphIndex
from .outside_ops import outside_ops, reach_text
from .state import GraphState, notes_of, signature_states


@dataclass(frozen=True, slots=True)
class Effects:
    """What running a version does besides answering.

    Attributes:
        states: signature -> what a run of it changes in the version; those that change nothing are left out.
        outside_ops: the ops of its graph that reach files, Python or the network: it is run on rows of users only.
    """

    states: Mapping[str, GraphState] = field(default_factory=dict)
    outside_ops: Sequence[str] = ()

    @property
    def lasting(self) -> str:
        """What a run leaves behind, in words; "" for nothing. Such a version runs for requests only, once for each."""
        written = next((state.text for state in self.states.values() if state.written), "")
        return written or self.reach

    def is_pure(self, signature: str) -> bool:
        """Whether a run of a signature does nothing but answer, and waits for nothing outside of its graph."""
        return signature not in self.states and not self.outside_ops

    @property
    def reach(self) -> str:
        """What its graph reaches outside of it, in words; "" for nothing."""
        return reach_text(self.outside_ops) if self.outside_ops else ""

    @property
    def randomness(self) -> str:
        """Why answers to the same request differ each time, in words; "" when they do not."""
        return next(iter(self.draws.values()), "")

    @property
    def draws(self) -> dict[str, str]:
        """Signature -> why its answers to the same request differ each time, in words; without those that do not."""
        return {name: state.draws_text for name, state in self.states.items() if state.draws}

    @property
    def notes(self) -> tuple[str, ...]:
        """What users have to know, one line each."""
        return (*notes_of(self.states), *filter(None, [self.reach]))


def effects_of(meta_graph: Any, folder: Path | str) -> Effects:
    """The effects of running a `MetaGraphDef` of the SavedModel in a folder, found without running it."""
    graph = GraphIndex(meta_graph.graph_def)
    return Effects(signature_states(meta_graph, graph), outside_ops(meta_graph, graph, Path(folder)))
