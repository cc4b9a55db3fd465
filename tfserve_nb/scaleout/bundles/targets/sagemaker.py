"""SageMaker: the archive that its TensorFlow Serving container unpacks, and the commands that deploy it.

Thread: any.

Reference: SageMaker's documentation, "Deploying directly from model artifacts": `model.tar.gz` holds `NAME/VERSION`.
"""

from __future__ import annotations

import json
import shlex
import tarfile
from pathlib import Path

from ....errors import ExportFailed
from ....export.signatures import SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE
from ....temporary import TemporaryFolder
from ..cluster import object_name
from ..contents import BundleContents
from ..files import Readme, copy_model, write_text
from ..options import BundleOptions
from ..serving_files import check_for_tensorflow_serving, notes_on, served_models, version_note

ARCHIVE = "model.tar.gz"
NOT_RUN = "Nothing of this was run: there was no account at AWS. The commands follow its documentation."


def write(contents: BundleContents, options: BundleOptions, folder: Path) -> Readme:
    """Write the bundle.

    Raises:
        FailedPrecondition: if a version is none that TensorFlow Serving serves.
        InvalidOption: if there are several models.
        OSError: if a version cannot be copied.
    """
    model = contents.model
    models = served_models(contents, options, "")
    check_for_tensorflow_serving(models)
    name = object_name(model.name)
    with TemporaryFolder(".packing", folder) as beside:
        warmup = copy_model(model, models[0].versions, beside.path / model.name)
        with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
            archive.add(beside.path / model.name, arcname=model.name)
    _check_archive(folder / ARCHIVE, [f"{model.name}/{version.number}" for version in models[0].versions])
    variant = {
        "VariantName": "all",
        "ModelName": name,
        "InitialInstanceCount": options.min_replicas,
        "InstanceType": "ml.c5.large",
    }
    write_text(folder / "endpoint-config.json", json.dumps([variant], indent=2) + "\n")
    address = (options.storage or "s3://my-bucket").rstrip("/") + f"/{name}/{ARCHIVE}"
    container = f"Image=$IMAGE,ModelDataUrl={address}"
    return Readme(
        title=f"{model.name} on SageMaker (not run)",
        commands=(
            "export IMAGE=URI_OF_THE_TENSORFLOW_INFERENCE_CONTAINER ROLE=ARN_OF_THE_EXECUTION_ROLE",
            f"aws s3 cp {ARCHIVE} {shlex.quote(address)}",
            f'aws sagemaker create-model --model-name {name} --execution-role-arn "$ROLE" '
            f'--primary-container "{container}"',
            f"aws sagemaker create-endpoint-config --endpoint-config-name {name} "
            "--production-variants file://endpoint-config.json",
            f"aws sagemaker create-endpoint --endpoint-name {name} --endpoint-config-name {name}",
        ),
        checked=(f"{ARCHIVE} holds {model.name}/VERSION/saved_model.pb, as SageMaker's container expects it.",),
        not_run=(NOT_RUN,),
        notes=(
            *version_note(),
            *notes_on(models),
            *warmup,
            "IMAGE is one of AWS' Deep Learning Containers, `tensorflow-inference`, in your region.",
            "Clients call the endpoint with the body of a REST predict request, without its path: "
            f"aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type application/json --body ...",
            "Batching of the container is set by its environment (SAGEMAKER_TFS_ENABLE_BATCHING), not by a file.",
        ),
    )


def _check_archive(path: Path, versions: list[str]) -> None:
    """See that the archive holds the versions where the container looks for them.

    Raises:
        ExportFailed: naming the one that is not there.
    """
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
    for version in versions:
        if not names & {f"{version}/{file}" for file in (SAVED_MODEL_FILE, SAVED_MODEL_TEXT_FILE)}:
            raise ExportFailed(
                f"{path.name} holds no {version}/{SAVED_MODEL_FILE}", hint="report this as a defect of tfserve_nb"
            )
