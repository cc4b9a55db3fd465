"""The serving core: models, versions, batching and telemetry, without HTTP and without the notebook.

From top to bottom; each imports only from what stands below it:

    configured              models that a configuration file lists
    core                    `ServingCore`: all models of a process, and their administration
    admin, direct, shadow   the administration's protocol; predict without a socket; copies of requests
    models                  a model: which of its versions answers, what is stored of it
    versions                a version: loading, warming up, pinning, unloading
    batching                queues of requests, and the runner that takes batches from them
    backend                 `InferenceBackend`: all that servers know of the core
    telemetry, traffic      what is counted, sampled and observed; splitting requests between versions
"""
