"""`tfserve-nb bundle FOLDER`: what `d.bundle` does, for model folders or a configuration file.

Thread: the main thread.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

from ..errors import InvalidOption, ServingError
from ..options import add_options, option, read
from ..protos.postponed import postpone
from ..scaleout.bundles.batching import OFF, given
from ..scaleout.bundles.bundle import TARGETS, Bundle, check_place, check_target, write_bundle
from ..scaleout.bundles.gather import contents_of_configs
from ..scaleout.bundles.options import BundleOptions
from ..server.config_files import read_model_configs
from ..serving.models.model_config import ModelConfig, VersionPolicy

EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class _CommandOptions:
    """What only the command line has."""

    folder: str = option(
        MISSING, "where the bundle is written; empty or not there", is_positional=True, metavar="FOLDER"
    )
    target: str = option("tf-serving", f"what it is for: {', '.join(TARGETS)}", metavar="TARGET")
    model_name: str = option(
        "default", "name of the model at --model_base_path", flags=("--model_name",), metavar="NAME"
    )
    model_base_path: str = option(
        "",
        "folder with numbered version folders; its highest version is bundled",
        flags=("--model_base_path",),
        metavar="FOLDER",
    )
    model_config_file: str = option(
        "", "ModelServerConfig, text proto; replaces the two above", flags=("--model_config_file",), metavar="FILE"
    )
    batching_parameters_file: str = option(
        "", "BatchingParameters, text proto", flags=("--batching_parameters_file",), metavar="FILE", shown="no batching"
    )


def bundle(arguments: list[str]) -> int:
    """Write a bundle.

    Args:
        arguments: what stands after `bundle`.

    Returns:
        0 when it was written, else 1.
    """
    parser = argparse.ArgumentParser(
        "tfserve-nb bundle", description="Write what another kind of server needs to serve the same models."
    )
    add_options(parser, _CommandOptions, BundleOptions)
    parsed = parser.parse_args(arguments)
    postpone()  # messages are enough
    try:
        print(_written(read(_CommandOptions, parsed), read(BundleOptions, parsed)))
    except ServingError as error:
        hint = f" (try: {error.hint})" if error.hint else ""
        print(f"tfserve-nb bundle: {error.message}{hint}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _written(own: _CommandOptions, options: BundleOptions) -> Bundle:
    check_target(own.target)
    check_place(own.folder)
    batching = given(Path(own.batching_parameters_file)) if own.batching_parameters_file else OFF
    contents = contents_of_configs(_configs(own, options), batching, options.versions)
    return write_bundle(contents, own.folder, own.target, options)


def _configs(own: _CommandOptions, options: BundleOptions) -> tuple[ModelConfig, ...]:
    if own.model_config_file:
        return read_model_configs(own.model_config_file) or ()
    if not own.model_base_path:
        raise InvalidOption(
            "no model is named",
            hint="--model_name=digits --model_base_path=tfserve_models/digits, or --model_config_file",
        )
    base_path = str(Path(own.model_base_path.removeprefix("file://")).absolute())
    policy = VersionPolicy(latest=None, specific=options.versions) if options.versions else VersionPolicy()
    return (ModelConfig(own.model_name, base_path, policy),)
