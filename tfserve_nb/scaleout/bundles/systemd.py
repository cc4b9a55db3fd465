"""A systemd unit for a server, and the names that may stand in it.

Thread: any.

Reference: systemd.service(5), systemd.exec(5).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ExportFailed

UNIT_FILE = "tensorflow-serving.service"

_KEYS = {
    "Unit": {"Description", "After", "Wants"},
    "Service": {
        "Type", "ExecStart", "DynamicUser", "Restart", "RestartSec", "TimeoutStopSec", "LimitNOFILE", "NoNewPrivileges",
        "ProtectSystem", "ProtectKernelTunables", "ProtectControlGroups", "RestrictSUIDSGID", "LockPersonality",
        "CapabilityBoundingSet", "IPAddressAllow", "IPAddressDeny",
    },
    "Install": {"WantedBy"},
}  # fmt: skip


def unit_text(description: str, command: Sequence[str]) -> str:
    """A unit that runs a command as a user of its own, which can write nothing."""
    start = " \\\n    ".join(_quoted(word) for word in command)
    return f"""[Unit]
Description={description.replace("%", "%%")}
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={start}
DynamicUser=yes
Restart=on-failure
RestartSec=2
TimeoutStopSec=45
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
# It asks for no token: only this machine may call it.
IPAddressAllow=localhost
IPAddressDeny=any

[Install]
WantedBy=multi-user.target
"""


def check_unit(text: str) -> None:
    """See that a unit has no section or key but those that it may have.

    Raises:
        ExportFailed: naming the line; systemd itself would ignore it.
    """
    section, is_continued = "", False
    for line in text.splitlines():
        if is_continued or not line or line.startswith("#"):
            is_continued = line.endswith("\\")
            continue
        is_continued = line.endswith("\\")
        if line.startswith("["):
            section = line.strip("[]")
            is_known = section in _KEYS
        else:
            is_known = line.partition("=")[0] in _KEYS.get(section, ())
        if not is_known:
            raise ExportFailed(f"a systemd unit has no line {line!r}", hint="report this as a defect of tfserve_nb")


def _quoted(word: str) -> str:
    """A word of a command, as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(one in word for one in " \t\"'\\;") else escaped
