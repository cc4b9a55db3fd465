"""Vertex AI: a SavedModel in a bucket, served by the image of TensorFlow Serving that is built from the bundle.

Thread: any.

Reference: Google Cloud's documentation, "Custom container requirements for prediction".
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ..cluster import object_name
from ..contents import BundleContents
from ..files import Readme
from ..images import OWN_FILE, SERVING_FILE, write_images
from ..options import BundleOptions
from ..serving_files import CHECKED, REST_PORT, model_path

NOT_RUN = "Nothing of this was run: there was no account at Google Cloud. The commands follow its documentation."


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        InvalidOption: if there are several models, or the versions are not to be copied.
        OSError: if a version cannot be copied.
    """
    model = contents.model
    images = write_images(contents, options, folder)
    image, file = (images.serving, SERVING_FILE) if images.serving else (images.own, OWN_FILE)
    name, tag = object_name(model.name), shlex.quote(image)
    repository = '"$REGION-docker.pkg.dev/$PROJECT/models"'
    path = shlex.quote(model_path(model.name))
    notes = [*images.notes]
    if not images.serving:
        notes.append(
            "Vertex AI sends no token of this server's: build the image without --auth_token_file in its ENTRYPOINT."
        )
    return Readme(
        title=f"{model.name} on Vertex AI (not run)",
        commands=(
            "export PROJECT=my-project REGION=europe-west4",
            f"docker build --file {file} --tag {repository}/{tag} . && docker push {repository}/{tag}",
            f"gcloud ai models upload --project=$PROJECT --region=$REGION --display-name={name} "
            f"--container-image-uri={repository}/{tag} --container-ports={REST_PORT} "
            f"--container-health-route={path} --container-predict-route={path}:predict",
            f"gcloud ai endpoints create --project=$PROJECT --region=$REGION --display-name={name}",
            "gcloud ai endpoints deploy-model ENDPOINT_ID --project=$PROJECT --region=$REGION --model=MODEL_ID "
            f"--display-name={name} --machine-type=n1-standard-2 --min-replica-count={options.min_replicas} "
            f"--max-replica-count={options.max_replicas} --traffic-split=0=100",
        ),
        checked=(CHECKED,),
        not_run=(NOT_RUN,),
        notes=tuple(notes),
    )
