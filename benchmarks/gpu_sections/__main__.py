"""One section in a process of its own, which begins with an unused GPU.

Usage: python -m gpu_sections SECTION SETTING FOUND

SETTING is JSON, see `Setting`. Each case is written to the file FOUND as soon as it is measured, as a line of JSON, so
that a section that is stopped loses none.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from . import NO_DEVICE, SECTIONS, Setting


def main() -> int:
    """Measure a section."""
    section, told, path = sys.argv[1:]
    setting = Setting(**json.loads(told))
    import tensorflow as tf

    devices = [one.name.removeprefix("/physical_device:") for one in tf.config.list_physical_devices()]
    if setting.device.lstrip("/").upper() not in devices:
        print(f"TensorFlow has no {setting.device} here, but {', '.join(devices)}", file=sys.stderr)
        return NO_DEVICE
    with Path(path).open("w") as file:
        for found in SECTIONS[section](setting):
            file.write(json.dumps(dataclasses.asdict(found)) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
