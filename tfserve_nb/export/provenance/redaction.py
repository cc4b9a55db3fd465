r"""Take secrets out of the text of a cell before it is stored beside a model.

Rules on text, not a parser: a cell may hold magics, shell lines and half-finished code. They match the forms in which
secrets are usually written; a secret in another form (`x = "tr0ub4dor"`) stays, so a cell with one should be deployed
without provenance. When in doubt a value is taken out: a missing text harms less than a stored password.

What is taken out:

* tokens with a known form: AWS, GitHub, GitLab, Google, Hugging Face, OpenAI, Slack, Stripe, PyPI, npm,
  JSON web tokens, private keys in PEM, what follows `Bearer` or `Basic`;
* text that is given to a name that sounds secret: `password = "..."`, `login(token="...")`, `{"api_key": "..."}`,
  `os.environ["DB_PASSWORD"] = "..."`, `--token ...`, `# password: ...`;
* long hexadecimal or base64 text that is given to a name with `key`, `auth` or `secret` in it;
* every value of `%env` and `%set_env`, and of `export` and shell lines when the name sounds secret;
* passwords and secret parameters in URLs.

Thread: any; pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "[redacted]"
MAX_CHARS = 100_000
"""Characters that are searched; the rest of a longer text is cut off before."""

_WORDS = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key"
    r"|auth(?:orization)?|credentials?|account[_-]?key|conn(?:ection)?[_-]?str(?:ing)?|sas[_-]?url|dsn"
)
_NAME = (
    rf"(?:[\w.-]{{0,60}}[_.-])?(?:{_WORDS})\d*(?:[_-]?(?:value|prod|production|dev|test|staging|live|main|str|text))?"
)
"""A name that sounds secret: one of the words, alone or at the end, as in `DB_PASSWORD`, `hf-token`, `api_key_prod`."""

_SHORT_NAME = rf"(?:{_WORDS}|key|keys|license|licence|signature|salt)"
_KEYISH_NAME = rf"(?:[\w.-]{{0,60}}[_.-])?{_SHORT_NAME}(?:[_-][\w-]*)?"
"""A name that may be harmless (`key`, `token_type`): only values that look random are taken out."""

_HARMLESS = r"(?:pad|eos|bos|unk|mask|sep|cls|oov|start|end|stop|sos|special|image|next|first|last|mask)"
"""What tokens of language models are called."""

_TRIPLE = r'"""(?:[^\\]|\\.)*?"""' + r"|'''(?:[^\\]|\\.)*?'''"
_PLAIN = r'"(?:[^"\\\n]|\\.)+"' + r"|'(?:[^'\\\n]|\\.)+'"
_LITERAL = rf"[fFrRbBuU]{{0,2}}(?:{_TRIPLE}|{_PLAIN})"
_LITERALS = rf"\(?\s*(?P<value>{_LITERAL}(?:\s*{_LITERAL})*)"
_RANDOM = r"""[fFrRbBuU]{0,2}(?P<quote>["'])(?P<value>(?=[^"'\n]{0,200}\d)[A-Za-z0-9+/_=.-]{20,})(?P=quote)"""
_ASSIGNED = r"""["']?\]?\s*(?::\s*[\w.|\[\] ]+?\s*)?(?<![=!<>])[=:]\s*(?!=)"""
"""What stands between a name and its value: `=`, `: str =`, `":`, `"] =`."""

_LOOKS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_\w{20,}",
    r"\bglpat-[\w-]{20,}",
    r"\bxox[abeoprs]-[\w-]{10,}",
    r"\bsk-[A-Za-z0-9_-]{20,}",
    r"\b[rs]k_(?:live|test)_\w{16,}",
    r"\bhf_[A-Za-z0-9]{20,}",
    r"\bAIza[\w-]{30,}",
    r"\bya29\.[\w-]{20,}",
    r"\bpypi-[\w-]{30,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",
)
_QUERY = r"(?:\w*token|\w*secret|password|passwd|pwd|sig|signature|api[_-]?key|key|code|x-amz-(?:signature|credential))"

_RULES = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        *((f"(?P<value>{look})", re.NOFLAG) for look in _LOOKS),
        (r"\b(?:Bearer|Basic)\s+(?P<value>(?=[^\s\"']*[\d=+/.])[A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE),
        (r"\b[a-z][a-z0-9+.-]{0,20}://(?P<value>[^\s/@\"'{}]{0,100}:[^\s/@\"'{}]{1,200})@", re.IGNORECASE),
        (rf"[?&]{_QUERY}=(?P<value>[^&\s\"'#{{}}]+)", re.IGNORECASE),
        (r"^[ \t]*%(?:set_)?env[ \t]+[\w.-]+(?:[ \t]*=[ \t]*|[ \t]+)(?P<value>[^\n]+)", re.MULTILINE),
        (rf"^[ \t]*(?:!|%|export\b|set\b)[^\n]{{0,300}}?\b{_NAME}=(?P<value>[^\s\"']+)", re.MULTILINE | re.IGNORECASE),
        (rf"(?<![\w-])--?(?:[\w-]{{0,40}}-)?(?:{_WORDS})(?:[ \t]+|=)(?P<value>(?!-)[^\s\"']+)", re.IGNORECASE),
        (rf"#[^\n]{{0,200}}?\b(?:{_WORDS})\s*[:=]\s*(?P<value>[^\s,;]+)", re.IGNORECASE),
        (rf"(?<![\w.-])(?!{_HARMLESS}_)(?:{_NAME}){_ASSIGNED}{_LITERALS}", re.IGNORECASE),
        (rf"(?<=[.])(?:{_NAME}){_ASSIGNED}{_LITERALS}", re.IGNORECASE),
        (rf"\bauth\s*=\s*\(\s*(?:{_LITERAL}|[\w.]+)\s*,\s*(?P<value>{_LITERAL})", re.IGNORECASE),
        (rf"\b(?:setdefault|putenv|setenv|set_key|set_password)\(\s*[\"']{_NAME}[\"']\s*,\s*(?P<value>{_LITERAL})",
         re.IGNORECASE),
        (rf"(?<![\w.-])(?:{_KEYISH_NAME}){_ASSIGNED}{_RANDOM}", re.IGNORECASE),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without the secrets that were found.

    Attributes:
        text: with `[redacted]` in place of each.
        count: how many were taken out.
        is_cut: whether the end of a very long text is missing.
    """

    text: str
    count: int = 0
    is_cut: bool = False


def redact(text: str) -> Redacted:
    """Replace what looks like a secret.

    Example:
        >>> redact("password = 'hunter2'; epochs = 5").text
        "password = '[redacted]'; epochs = 5"
    """
    is_cut = len(text) > MAX_CHARS
    text, count = text[:MAX_CHARS], 0
    for rule in _RULES:
        text, replaced = _apply(rule, text)
        count += replaced
    return Redacted(text, count, is_cut)


def _apply(rule: re.Pattern[str], text: str) -> tuple[str, int]:
    parts, place, count = [], 0, 0
    for match in rule.finditer(text):
        start, end = match.span("value")
        value = text[start:end]
        if MARK in value and len(value) <= len(MARK) + 8:
            continue
        quote = _quote(value)
        parts += [text[place:start], f"{quote}{MARK}{quote}"]
        place, count = end, count + 1
    return "".join([*parts, text[place:]]), count


def _quote(value: str) -> str:
    """The quotation mark of a literal, so that code stays code; "" for a value without."""
    last = value[-1]
    return last if last in "\"'" and value.lstrip("fFrRbBuU")[:1] == last else ""
