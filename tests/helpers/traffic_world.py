"""A made-up world around the real batch queues: two versions on one device, random requests, a clock that jumps.

The queues, the choice between them and the forming of batches are the package's own code (`BatchQueue`, `Runner`);
only arrivals, who gets them and how long a run takes are drawn. A run's time belongs to the whole batch:

    time = (FIXED_S + size * PER_ROW_S) * exp(white + wave + drift) * (1 + effect, for B) * (outlier, sometimes)

`wave` is an autoregressive process from run to run, whichever version runs; `drift` is slow.

There may be copies, which go where `Routing` sends them and run in background lanes, and another model, whose clients
each ask again when they have their answer. Copying an answer, and looking at what became of it, keeps the processor
busy for `HANDLING_S`; a run that begins meanwhile takes longer.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfserve_nb.experiment.engine.observations import Observations
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.serving.backend import Answer, Outcome
from tfserve_nb.serving.batching.lane import Lane
from tfserve_nb.serving.batching.options import BatchingOptions
from tfserve_nb.serving.batching.queue import Batch, BatchQueue
from tfserve_nb.serving.batching.runner import Runner
from tfserve_nb.serving.models.routing import Routing
from tfserve_nb.serving.shadow import MAX_RUNNING, MAX_WAITING
from tfserve_nb.serving.traffic import Shadow
from tfserve_nb.serving.versions.version import CopyQueue
from tfserve_nb.types import Tensors

FIXED_S, PER_ROW_S = 4e-3, 0.2e-3
OPTIONS = BatchingOptions(32)
ROW = {"x": np.zeros((1, 1), np.float32)}
DEADLINE_S = 1e9
HANDLING_S = 2e-3
RIVAL_S, THINKING_S = 6e-3, 3e-3
ARMS = ("a", "b")


@dataclass(frozen=True)
class World:
    """How the world is.

    Attributes:
        rate: requests a second.
        percent: of them to B.
        effect: how much longer B's runs take, relative.
        white: standard deviation of independent noise of a run, of logarithms.
        wave: standard deviation of the autoregressive noise.
        memory: its correlation from one run to the next.
        drift: amplitude of the slow drift.
        outliers: share of runs that take 20 times as long.
        outliers_b: the same of B, in addition.
        fails_a: share of A's requests that fail.
        fails_b: share of B's requests that fail.
        clients: how many clients there are, each kept with its version; 0 assigns each request by itself.
        shadow: percent of the requests that are copied.
        is_one_sided: whether only A's requests are copied, which `Routing` does not do while versions are compared.
        rivals: clients of the other model.
        contention: how much longer a run takes that begins while copies are handled, relative.
    """

    rate: float = 400.0
    percent: float = 50.0
    effect: float = 0.0
    white: float = 0.15
    wave: float = 0.15
    memory: float = 0.8
    drift: float = 0.2
    outliers: float = 0.01
    outliers_b: float = 0.0
    fails_a: float = 0.0
    fails_b: float = 0.0
    clients: int = 0
    shadow: float = 0.0
    is_one_sided: bool = False
    rivals: int = 0
    contention: float = 0.0


class Traffic:
    """One run of a world, observed.

    Attributes:
        observations: what the experiment sees.
        now_s: the clock.
        batches: arm, padded size and time of each run.
        latencies: arm -> latency of each of its requests.
    """

    def __init__(self, world: World, plan: Plan, seed: int) -> None:
        self.world = world
        self.observations = Observations(plan)
        self.now_s = 0.0
        self.percent = world.percent
        self.batches: list[tuple[str, int, float]] = []
        self.latencies: dict[str, list[float]] = {"a": [], "b": []}
        self._rng = np.random.default_rng(seed)
        self._arm_of = self._rng.random(world.clients or 1)
        self._phase = self._rng.random() * 2 * math.pi
        self._wave = self._rng.normal() * world.wave
        self._runner = Runner(now=lambda: self.now_s)
        self._lanes = [self._attach(arm) for arm in ARMS]
        self._due_s = 0.0
        self._draw_next()
        shadow = Shadow(2, world.shadow) if world.shadow else None
        self._routing = Routing("m").with_split({1: 50.0, 2: 50.0}, arms={1: "a", 2: "b"}, shadow=shadow)
        self._background = [self._attach(arm, is_background=True) for arm in ARMS]
        self._rival = self._runner.attach(BatchQueue(OPTIONS), self._run_rival)
        self._copies: deque[Lane] = deque()
        self._num_running = 0
        self._handled_s = 0.0
        self._later: list[tuple[float, int]] = [(self._rng.exponential() * THINKING_S, n) for n in range(world.rivals)]
        heapq.heapify(self._later)

    def _attach(self, arm: str, *, is_background: bool = False) -> Lane:
        def run(inputs: Tensors) -> Tensors:
            self._pass_until(self.now_s + self._time_of(arm, len(inputs["x"])))
            return {"y": inputs["x"]}

        def observe(batch: Batch, started_s: float, done_s: float) -> None:
            size = OPTIONS.padded_size(batch.num_rows)
            if not is_background:
                self.batches.append((arm, size, done_s - started_s))
            self.observations.add_batch(arm, done_s, size, done_s - started_s, is_background=is_background)

        queue = (CopyQueue if is_background else BatchQueue)(OPTIONS)
        return self._runner.attach(queue, run, observe, is_background=is_background)

    def _run_rival(self, inputs: Tensors) -> Tensors:
        self._pass_until(self.now_s + RIVAL_S * self._slowness())
        return {"y": inputs["x"]}

    def _ask_rival(self, number: int) -> None:
        def done(_: Outcome) -> None:
            heapq.heappush(self._later, (self.now_s + self._rng.exponential() * THINKING_S, number))

        self._runner.submit(self._rival, ROW, 1, deadline_s=DEADLINE_S, on_done=done)

    def _copy(self, number: int) -> None:
        """A request that an arm answered may be copied."""
        shadow = self._routing.copies_of(number + 1)
        if shadow is None or (self.world.is_one_sided and number) or self._rng.random() * 100 >= shadow.percent:
            return
        self._handled_s = max(self.now_s, self._handled_s) + HANDLING_S
        if len(self._copies) < MAX_WAITING:
            self._copies.append(self._background[shadow.version - 1])
        self._begin_copies()

    def _begin_copies(self) -> None:
        def done(_: Outcome) -> None:
            self._num_running -= 1
            self._handled_s = max(self.now_s, self._handled_s) + HANDLING_S
            self._begin_copies()

        while self._copies and self._num_running < MAX_RUNNING:
            self._num_running += 1
            self._runner.submit(self._copies.popleft(), ROW, 1, deadline_s=DEADLINE_S, on_done=done)

    def _slowness(self) -> float:
        """How much longer than usual the next run takes, whatever runs."""
        world, rng = self.world, self._rng
        self._wave = world.memory * self._wave + rng.normal() * world.wave * math.sqrt(1 - world.memory**2)
        drift = world.drift * math.sin(self._phase + self.now_s / 10)
        slowness = math.exp(rng.normal() * world.white + self._wave + drift)
        return slowness * (1 + world.contention * (self.now_s < self._handled_s))

    def _time_of(self, arm: str, size: int) -> float:
        world, rng = self.world, self._rng
        time_s = (FIXED_S + size * PER_ROW_S) * self._slowness()
        is_b = arm == "b"
        if rng.random() < world.outliers + is_b * world.outliers_b:
            time_s *= 20
        return time_s * (1 + is_b * world.effect)

    def _draw_next(self) -> None:
        self._due_s += self._rng.exponential() / self.world.rate

    def _pass_until(self, until_s: float) -> None:
        """Let time go by; what is due in the meantime is queued at its moment."""
        while min(self._due_s, self._rival_s) <= until_s:
            if self._rival_s < self._due_s:
                self.now_s, number = heapq.heappop(self._later)
                self._ask_rival(number)
                continue
            self.now_s = self._due_s
            self._arrive()
            self._draw_next()
        self.now_s = until_s

    @property
    def _rival_s(self) -> float:
        return self._later[0][0] if self._later else math.inf

    def _arrive(self) -> None:
        came_s, key = self.now_s, ""
        luck = self._rng.random()
        if self.world.clients:
            client = int(self._rng.integers(self.world.clients))
            key, luck = f"client-{client}", self._arm_of[client]
        number = int(luck < self.percent / 100)
        arm = ARMS[number]
        fails = self._rng.random() < (self.world.fails_b if number else self.world.fails_a)

        def done(outcome: Outcome) -> None:
            assert isinstance(outcome, Answer)
            latency_s = self.now_s - came_s
            self.latencies[arm].append(latency_s)
            code = "INTERNAL" if fails else "OK"
            self.observations.add_request(arm, self.now_s, latency_s, code, key, is_assigned=True)
            self._copy(number)

        self._runner.submit(self._lanes[number], ROW, 1, deadline_s=DEADLINE_S, on_done=done)

    def step(self) -> None:
        """Wait for the next batch and run it."""
        runner = self._runner
        if not any(lane.queue.num_rows for lane in (*self._lanes, *self._background, self._rival)):
            self._pass_until(min(self._due_s, self._rival_s))
        taken = runner._next()  # noqa: SLF001 - a runner's thread does just this, again and again
        assert taken is not None
        lane, batch, _ = taken
        assert batch is not None
        runner._run_batch(lane, batch)  # noqa: SLF001

    def looks(self, num_requests: int, every: int) -> Iterator[int]:
        """Go on until so many requests were answered; stop to look after each `every` of them."""
        seen = 0
        while seen < num_requests:
            self.step()
            answered = len(self.latencies["a"]) + len(self.latencies["b"])
            if answered >= seen + every:
                seen = answered
                yield seen

    def set_percent(self, percent: float) -> None:
        """A canary step."""
        self.percent = percent
        self.observations.set_percent(percent, self.now_s)


def plan_for(world: World, metric: str = "latency", *, alpha: float = 0.05, limits: Limits | None = None) -> Plan:
    """A plan that fits a world."""
    return Plan("m", 1, 2, split=world.percent, metric=metric, alpha=alpha, limits=limits or Limits())
