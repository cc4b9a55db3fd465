"""Write the tables of options in the README and in docs/ from where the options are declared.

Such a table stands below a line `<!-- options: NAME -->`; its two head lines stay as they are. Run this after a change
to an option; a test says when a table is out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tfserve_nb.agreement.kinds import AgreementOptions
from tfserve_nb.experiment.plan import Limits, Plan
from tfserve_nb.notebook.commands import AskOptions
from tfserve_nb.notebook.magics import DeployMagics
from tfserve_nb.options import Option, options_of

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = "<!-- options: "

TABLES: dict[str, tuple[Option, ...]] = {
    **{f"%{magic}": getattr(DeployMagics, magic).options for magic in ("deploy", "benchmark", "replay", "variants")},
    "d.ab_test": options_of(Plan, AgreementOptions, Limits, AskOptions),
}


def with_tables(text: str) -> str:
    """A document with its tables as they should be."""
    lines = text.splitlines()
    for number in [number for number, line in enumerate(lines) if line.startswith(MARK)][::-1]:
        name = lines[number].removeprefix(MARK).split(" ")[0]
        start = next(at for at in range(number, len(lines)) if lines[at].startswith("|"))
        end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
        has_keywords = lines[start + 1].count("---") == 4
        lines[start + 2 : end] = rows(TABLES[name], has_keywords=has_keywords)
    return "\n".join(lines) + "\n"


def rows(options: Iterable[Option], *, has_keywords: bool) -> list[str]:
    """A row for each option; words that stand alone are explained in the text."""
    found = []
    for one in options:
        if not one.is_positional:
            keyword = f"`{one.field}=False`" if one.is_switch and one.default else f"`{one.field}`"
            cells = (keyword, *_cells(one)) if has_keywords else _cells(one)
            found.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return found


def _cells(one: Option) -> tuple[str, ...]:
    default = one.default_text
    is_word = not one.shown and isinstance(one.default, str)
    aliases = "".join(f", `{flag}`" for flag in one.written[1:] if flag.startswith("--"))
    usage = "" if one.is_python_only else f"`{one.usage}`{aliases}"
    return tuple(cell.replace("|", r"\|") for cell in (usage, one.meaning, f"`{default}`" if is_word else default))


def main() -> None:
    """Write what is out of date."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if text != (wanted := with_tables(text)):
            path.write_text(wanted, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
