"""How a version batches, with TensorFlow Serving's names.

Thread: any; immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any  # JSON values

from ...errors import InvalidOption
from ...options import option

DEFAULT_MAX_BATCH_SIZE = 64
DEFAULT_MAX_ENQUEUED_BATCHES = 100


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """Limits of the batch queues of one version.

    Attributes:
        allowed_batch_sizes: increasing, the last one `max_batch_size`; () for powers of two.
        is_enabled: False runs every request alone.
        pads: False runs batches without padding, whatever `allowed_batch_sizes` is.
        input_batch_size_limit: most rows of one request; more is refused. None splits any size.
        enable_large_batch_splitting: False never splits a request; its queue then counts whole batches.
        pad_variable_length_inputs: inputs of one batch may differ in their inner dimensions and are padded at the end
            with their own first element; False runs requests of different shapes in different batches.
        checks_shapes: False leaves it to the graph whether a shape fits, as TensorFlow Serving does.

    Raises:
        InvalidOption: if a value is not allowed; the message names it.

    Reference: tensorflow_serving/batching/README.md and `BatchingParameters`. Our defaults differ where a notebook
        does: splitting is always on, and padding to powers of two keeps the number of shapes small.
    """

    max_batch_size: int = option(
        DEFAULT_MAX_BATCH_SIZE, "most rows in one run of the model; larger requests are split", metavar="ROWS"
    )
    batch_timeout_micros: int = option(
        0,
        "how long the first request of a batch may wait for others, in microseconds; 0 sends at once what is queued",
        metavar="MICROS",
    )
    max_enqueued_batches: int = option(
        DEFAULT_MAX_ENQUEUED_BATCHES, "how many full batches may wait before requests are refused with 503"
    )
    allowed_batch_sizes: tuple[int, ...] = option(
        (), "sizes that batches are padded up to, all warmed up before the version serves", shown="powers of two"
    )
    _: KW_ONLY
    is_enabled: bool = True
    pads: bool = True
    input_batch_size_limit: int | None = None
    enable_large_batch_splitting: bool = True
    pad_variable_length_inputs: bool = False
    checks_shapes: bool = True

    def __post_init__(self) -> None:
        _require("max_batch_size", self.max_batch_size, 1)
        _require("batch_timeout_micros", self.batch_timeout_micros, 0)
        _require("max_enqueued_batches", self.max_enqueued_batches, 1)
        sizes = tuple(self.allowed_batch_sizes) or powers_of_two(self.max_batch_size)
        for smaller, larger in zip((0, *sizes), sizes, strict=False):
            if not isinstance(larger, int) or larger <= smaller:
                raise InvalidOption(
                    f"allowed_batch_sizes={list(sizes)} must be increasing positive integers",
                    hint=f"{self.max_batch_size} as the last one, for example 1,8,{self.max_batch_size}",
                )
        if sizes[-1] not in (self.max_batch_size, self.input_batch_size_limit):
            raise InvalidOption(
                "Last entry in allowed_batch_sizes must match max_batch_size; "
                f"last entry was {sizes[-1]}; expected {self.max_batch_size}",
                hint=f"--max-batch-size {sizes[-1]}, or add {self.max_batch_size} to the sizes",
            )
        object.__setattr__(self, "allowed_batch_sizes", sizes)

    def to_json(self) -> dict[str, Any]:
        """The three limits that everyone sets, and what else differs from its default."""
        always = [one.name for one in fields(self)[:3]]
        default = BatchingOptions(max_batch_size=self.max_batch_size)
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        chosen = {name: value for name, value in values.items() if name in always or value != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BatchingOptions:
        """The inverse of `to_json`; what is left out is as by default."""
        return cls(**{**value, "allowed_batch_sizes": tuple(value.get("allowed_batch_sizes", ()))})

    @property
    def batch_timeout_s(self) -> float:
        """`batch_timeout_micros` in seconds."""
        return self.batch_timeout_micros * 1e-6

    @property
    def max_enqueued_rows(self) -> int:
        """Rows that may wait in one queue."""
        return self.max_enqueued_batches * self.max_batch_size

    def padded_size(self, num_rows: int) -> int:
        """The smallest allowed batch size that holds `num_rows` (1 to `max_batch_size`)."""
        if not self.pads or num_rows > self.allowed_batch_sizes[-1]:
            return num_rows
        return next(size for size in self.allowed_batch_sizes if size >= num_rows)


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `limit` itself.

    Example:
        >>> powers_of_two(12)
        (1, 2, 4, 8, 12)
    """
    sizes = []
    size = 1
    while size < limit:
        sizes.append(size)
        size *= 2
    return (*sizes, limit)


def _require(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        option = "--" + name.replace("_", "-")
        raise InvalidOption(f"{name}={value!r} must be an integer of at least {least}", hint=f"{option} {least}")
