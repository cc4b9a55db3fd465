"""Container images of TensorFlow Serving and of `tfserve-nb serve`, both with the models in them.

Thread: any.
"""

from __future__ import annotations

from pathlib import Path

from ..contents import BundleContents
from ..files import Readme, write_text
from ..images import SERVING_FILE, TOKEN_FILE, write_images
from ..options import BundleOptions
from ..serving_files import CHECKED, GRPC_PORT, REST_PORT, model_path


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        InvalidOption: if the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    images = write_images(contents, options, folder)
    write_text(folder / ".gitignore", "token\n")
    url = f"http://127.0.0.1:{REST_PORT}"
    path = model_path(images.models[0].model.name)
    token = f'--volume "$PWD/token:{TOKEN_FILE}:ro"'
    publish = f"--publish 127.0.0.1:{REST_PORT}:{REST_PORT} --publish 127.0.0.1:{GRPC_PORT}:{GRPC_PORT}"
    own = (
        f"docker build --tag {images.own} .",
        "(umask 077; openssl rand -hex 32 > token)",
        f'docker run --detach --user "$(id -u)" --read-only --tmpfs /tmp {token} {publish} {images.own}',
        f'curl --header "Authorization: Bearer $(cat token)" {url}{path}',
    )
    serving = (f"docker build --tag {images.serving} --file {SERVING_FILE} .",) if images.serving else ()
    return Readme(
        title=f"{contents.title} as container images",
        commands=(*own, *serving),
        checked=(CHECKED,),
        not_run=("Neither image was built or run: there was no container engine.",),
        notes=images.notes,
    )
