"""What a check with the user's rows found about rows that run together: a small file beside a version.

The rows themselves are not kept. A server that loads the version, now or later, here or elsewhere, knows what they
showed.

Thread: any.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EVIDENCE_FILE = Path("assets.extra", "tfserve_nb_rows.json")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotedRows:
    """What is known of one signature.

    Attributes:
        are_independent: whether rows had the same outputs alone and beside others.
        found: how they depend on each other, in words; "" when they do not.
    """

    are_independent: bool
    found: str = ""


def note_rows(version_dir: Path, noted: Mapping[str, NotedRows]) -> None:
    """Write what is known of a version's signatures; raises OSError when the folder cannot be written."""
    path = version_dir / EVIDENCE_FILE
    path.parent.mkdir(exist_ok=True)
    value = {name: {"independent": known.are_independent, "found": known.found} for name, known in noted.items()}
    path.write_text(json.dumps(value, indent=1), "utf-8")


def read_noted_rows(version_dir: Path) -> dict[str, NotedRows]:
    """What was noted of a version's signatures; nothing when there is no such file, or it is damaged."""
    path = version_dir / EVIDENCE_FILE
    try:
        value = json.loads(path.read_text("utf-8"))
        return {name: NotedRows(known["independent"] is True, str(known["found"])) for name, known in value.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s cannot be read and is ignored: %s", path, error)
        return {}
