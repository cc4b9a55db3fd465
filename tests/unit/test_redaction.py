"""Which secrets are taken out of cells, and what is left alone."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserve_nb.export.provenance.redaction import MARK, MAX_CHARS, Redacted, redact

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"

SECRETS = [
    ("password = 'hunter2'", "hunter2"),
    ('PASSWORD="hunter2"', "hunter2"),
    ("db_password: str = 'hunter2'", "hunter2"),
    ('passwd = """hun\nter2"""', "ter2"),
    ("api_key='abc'", "abc"),
    ("apiKey = 'abc-def'", "abc-def"),
    ("API_KEY_PROD = 'abc-def'", "abc-def"),
    ("self.token = 'abc-def'", "abc-def"),
    ("config.api_key = f'abc-{x}'", "abc-"),
    ("client = Client(token='abc-def', retries=3)", "abc-def"),
    ("secret = ('abc'\n    'def')", "def"),
    ("headers = {'Authorization': 'Token abc-def'}", "abc-def"),
    ('headers = {"X-Api-Key": "abc-def"}', "abc-def"),
    ("os.environ['AWS_SECRET_ACCESS_KEY'] = 'abc-def'", "abc-def"),
    ("os.environ.setdefault('WANDB_API_KEY', 'abc-def')", "abc-def"),
    ("requests.get(url, auth=('me', 'hunter2'))", "hunter2"),
    ("requests.get(url, headers={'A': 'Bearer abc123def456'})", "abc123def456"),
    ("%env MY_SETTING=hunter2", "hunter2"),
    ("%env MY_SETTING hunter2 and more", "hunter2"),
    ("x = 1\n  %set_env NAME=hunter2\ny = 2", "hunter2"),
    ("!export DB_PASSWORD=hunter2 && run", "hunter2"),
    ("export API_TOKEN=hunter2", "hunter2"),
    ("!mysql --password hunter2", "hunter2"),
    ("!tool --api-key=hunter2 --verbose", "hunter2"),
    ("# the password is: hunter2\n# password: hunter2", "password: hunter2"),
    ("pd.read_sql(q, 'postgresql://me:hunter2@host/db')", "hunter2"),
    ("!git clone https://me:hunter2@example.org/x.git", "hunter2"),
    ("!pip install --index-url https://:hunter2@example.org/simple x", "hunter2"),
    ("url = 'https://example.org/x?access_token=hunter2&page=2'", "hunter2"),
    ("url = 'https://example.org/x?page=2&sig=hunter2'", "hunter2"),
    ("x = 'AKIAIOSFODNN7EXAMPLE'", "AKIAIOSFODNN7EXAMPLE"),
    (f"login('ghp_{HEX}')", HEX),
    (f"login('github_pat_{HEX}')", HEX),
    (f"login('hf_{HEX}')", HEX),
    (f"x = 'sk-{HEX}'", HEX),
    (f"x = 'glpat-{HEX}'", HEX),
    ("x = 'xoxb-123456789012-abcdef'", "123456789012"),
    (f"x = 'AIza{HEX}'", HEX),
    ("x = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl'", "c2lnbmF0dXJl"),
    ("k = '''-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----'''", "MIIE"),
    ("k = '''-----BEGIN PRIVATE KEY-----\nMIIE", "MIIE"),
    (f"wandb.login(key='{HEX}')", HEX),
    (f"encryption_key = '{HEX}'", HEX),
    (f"secret_name = '{HEX}'", HEX),
    ("account_key = 'c2VjcmV0IHNlY3JldCBzZWNyZXQ0Cg=='", "c2VjcmV0"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[text[:40] for text, _ in SECRETS])
def test_secrets_are_taken_out(text: str, secret: str) -> None:
    found = redact(text)

    assert secret not in found.text
    assert found.count == found.text.count(MARK) > 0


HARMLESS = [
    "token = tokenizer.encode(text)[0]",
    "tokens = ['a', 'b']",
    "num_tokens = 512; max_tokens=100",
    "tokenizer = 'bert-base-uncased'",
    "vectorize = TextVectorization(pad_token='[PAD]', oov_token='[UNK]')",
    "password = getpass.getpass('Password: ')",
    "api_key = os.environ['API_KEY']",
    "api_key = os.getenv('API_KEY')",
    "token = None",
    "password = ''",
    "if password == 'x': pass",
    "if token != 'x': pass",
    "def login(user: str, password: str = '') -> None: ...",
    "columns = ['user', 'password', 'email']",
    "df['password'].str.len()",
    "password_column = 'pw'",
    "token_type = 'wordpiece'",
    "key = 'image'; batch = {'key': 'image'}",
    "author = 'Bob'; authors = 'Bob and Ann'",
    "monkey = 'a long name of a monkey'",
    f"sha256 = '{HEX}'",
    f"commit = '{HEX}'",
    "layers.Dense(32, activation='relu', name='token_embedding')",
    "compass = 'north'; passes = '3'",
    "x = 'https://example.org/a?page=2&sort=key'",
    "url = 'http://127.0.0.1:8501/v1/models/digits@2'",
    "model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()])",
    "print('Basic usage of this')",
    "%deploy model --name digits --no-auth --token-env NAME",
    "x = a.T @ b; y = d['a:b'] @ c",
    "sk-learn is scikit-learn",
    "email = 'me@example.org'",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text).text == text
    assert redact(text).count == 0


def test_the_code_around_a_secret_stays_code() -> None:
    text = "password = 'hunter2'\nlogin(user, token=\"abc\", retries=3)\nurl = 'https://a:b@c.org/d?token=e&f=g'\n"

    found = redact(text)

    assert ast.unparse(ast.parse(found.text)) == (
        f"password = '{MARK}'\nlogin(user, token='{MARK}', retries=3)\nurl = 'https://{MARK}@c.org/d?token={MARK}&f=g'"
    )
    assert found.count == 4


def test_each_secret_is_counted_once() -> None:
    assert redact("password = 'ghp_0123456789012345678901234567890123456789'").count == 1
    assert redact("%env HF_TOKEN=hf_0123456789012345678901234567890123456789").count == 1


@given(st.text(), st.text(alphabet="abcdefgh0123456789", min_size=8, max_size=30), st.text())
def test_a_password_in_any_surroundings_is_taken_out(before: str, secret: str, after: str) -> None:
    # Not within an unfinished literal or a comment: there it is no assignment.
    text = f"{before}\npassword = 'q{secret}q'\n{after}"

    assert f"q{secret}q" not in redact(text).text


PIECES = st.sampled_from(
    ["token", "password", "api_key", "auth", "sig", "=", ":", "'", '"', " ", "\n", "#", "--", "http://", "@", "?", "&",
     "(", ")", ",", "[", "]", ".", "_", "\\", "f'", "\'\'\'", "abc", "a1B2c3D4e5F6g7H8i9J0k1", f"ghp_{HEX}", "sk-"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join))
def test_redacting_again_finds_nothing_new(text: str) -> None:
    once = redact(text)

    assert redact(once.text).text == once.text


@pytest.mark.parametrize("text", [text for text, _ in SECRETS])
def test_what_was_redacted_has_no_secret(text: str) -> None:
    once = redact(text)

    assert redact(once.text) == Redacted(once.text, count=0)


@pytest.mark.parametrize("piece", ["token='", "a-", "http://", "password = ('a' ", "# token", "key_", '"""', "x=\\"])
def test_long_text_takes_no_exponential_time(piece: str) -> None:
    text = piece * (20_000 // len(piece))

    redact(text)  # the test's time limit is the assertion


def test_what_is_too_long_is_cut() -> None:
    found = redact("x = 1\n" * MAX_CHARS)

    assert found.is_cut
    assert len(found.text) == MAX_CHARS
