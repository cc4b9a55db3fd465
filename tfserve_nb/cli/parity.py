"""`tfserve-nb parity URL_A URL_B`: what `d.parity` does, in a terminal, a script or a job.

Thread: the main thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import MISSING, dataclass

from ..errors import InvalidOption, ServingError
from ..options import add_options, option, read
from ..protos.postponed import postpone
from ..reports.text import to_terminal
from ..scaleout.parity.check import compare_servers
from ..scaleout.parity.options import ParityOptions, names_of
from ..scaleout.parity.side import Address
from ..server.handle import split_url
from ..types import ProgressEvent
from .private_files import read_token

EXIT_NOT_COMPARED = 2
NONE = "-"


def parity(arguments: list[str]) -> int:
    """Compare two servers and print the report.

    Args:
        arguments: what stands after `parity`.

    Returns:
        0 when they are the same, 1 when they differ, 2 when that could not be found out.
    """
    parser = argparse.ArgumentParser(
        "tfserve-nb parity",
        description="Compare two model servers: versions, states, labels, metadata, predictions over REST, the Open "
        "Inference Protocol and gRPC, the errors for bad requests, and latencies. A is the measure.",
        epilog="Exit code: 0 when both are the same, 1 when they differ, 2 when it could not be found out. What one of "
        "them does not have is not compared, and the report says so.",
    )
    add_options(parser, _Arguments, ParityOptions)
    parsed = parser.parse_args(arguments)
    postpone()  # its messages are all that is needed of TensorFlow
    try:
        own, options = read(_Arguments, parsed), read(ParityOptions, parsed)
        result = compare_servers(*own.addresses, own.models, options, _say)
    except ServingError as error:
        print(f"tfserve-nb parity: {error.message}{f' (try: {error.hint})' if error.hint else ''}", file=sys.stderr)
        return EXIT_NOT_COMPARED
    except KeyboardInterrupt:
        print("tfserve-nb parity: interrupted", file=sys.stderr)
        return EXIT_NOT_COMPARED
    print(to_terminal(result.report))
    return result.exit_code


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What only the command line has: the servers."""

    url_a: str = option(MISSING, "the REST address of the server that is the measure, http://HOST:PORT; with "
                        "/v1/models/NAME for one model", is_positional=True, metavar="URL_A")  # fmt: skip
    url_b: str = option(MISSING, "the other server's", is_positional=True, metavar="URL_B")
    model: tuple[str, ...] = option(
        (), "the models", metavar="NAME,NAME,...", shown="all that a server lists", parse=names_of
    )
    grpc: tuple[str, str] | None = option(
        None,
        "where A and B listen for gRPC: HOST:PORT, grpcs://HOST:PORT for TLS, - for none",
        metavar=("ADDRESS_A", "ADDRESS_B"),
        num_values=2,
        parse=str,
    )
    token_file: tuple[str, str] | None = option(
        None,
        "files with the tokens of A and B; - for none",
        metavar=("FILE_A", "FILE_B"),
        num_values=2,
        parse=str,
    )
    token_env: tuple[str, str] | None = option(
        None,
        "environment variables with the tokens of A and B, - for none; arguments can be seen by others",
        metavar=("NAME_A", "NAME_B"),
        num_values=2,
        parse=str,
    )

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Of A and of B.

        Raises:
            InvalidOption: if a URL or a variable does not do.
            ConfigRejected: if a file does not do.
        """
        urls = (self.url_a, self.url_b)
        given = [pair or (None, None) for pair in (self.grpc, self.token_file, self.token_env)]
        a, b = (
            Address(split_url(url)[0], _token(file, variable), None if grpc == NONE else grpc)
            for url, grpc, file, variable in zip(urls, *given, strict=True)
        )
        return a, b

    @property
    def models(self) -> tuple[str, ...]:
        """Those that are named, by the option or in the URLs.

        Raises:
            InvalidOption: if the URLs name different ones.
        """
        in_urls = {split_url(url)[1] for url in (self.url_a, self.url_b)} - {""}
        if len(in_urls) > 1:
            names = ", ".join(sorted(in_urls))
            raise InvalidOption(f"the URLs name different models: {names}", hint="the same in both")
        return tuple(dict.fromkeys((*self.model, *in_urls)))


def _token(file: str | None, variable: str | None) -> str | None:
    if file not in (None, NONE):
        return read_token(file or "", "token-file")
    if variable in (None, NONE):
        return None
    token = os.environ.get(variable or "")
    if not token:
        raise InvalidOption(
            f"there is no environment variable {variable!r}", hint=f"set {variable} to the token, or - for none"
        )
    return token


def _say(event: ProgressEvent) -> None:
    if sys.stderr.isatty():
        print(f"{event.detail} …", file=sys.stderr)
