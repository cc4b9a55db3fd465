"""What a version is stored as, noted in its folder for whatever serves it: plain, or a variant such as `float16`.

A file of its own, which stays where users want no provenance stored.

Thread: any.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from ...types import PLAIN

VARIANT_FILE = Path("assets.extra", "tfserve_nb_variant.json")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotedVariant:
    """What a version's folder says of its variant.

    Attributes:
        name: `PLAIN`, or the variant.
        found: what comparing it with the plain version showed, in words; "" when that is not known.
    """

    name: str = PLAIN
    found: str = ""


def note_variant(folder: Path, noted: NotedVariant) -> None:
    """Note in a version's folder what it is; raises OSError when it cannot be written."""
    path = folder / VARIANT_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"variant": noted.name, "found": noted.found}), "utf-8")


def read_variant(folder: Path) -> NotedVariant:
    """What a version's folder holds: the plain version when nothing else is noted in it."""
    path = folder / VARIANT_FILE
    try:
        value = json.loads(path.read_text("utf-8"))
        return NotedVariant(str(value["variant"]), str(value["found"]))
    except (FileNotFoundError, NotADirectoryError):
        return NotedVariant()
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s cannot be read and is ignored: %s", path, error)
        return NotedVariant()
