"""The serving core: models, versions, batching and telemetry, without HTTP and without the notebook.

From top to bottom; each imports only from what stands below it:

    configured              models that a configuration file lists
    core                    `ServingCore`: all models of a process, and their administration
    admin, direct, shadow   the administration's protocol; predict without a socket; copies of requests
    models                  a model: its routing, and its stored state
    versions                a version: load, warm up, pin, unload
    engines                 what runs it: TensorFlow's session, and what runs the same graph faster
    batching                queues of requests, and the runner that takes batches from them
    backend                 `InferenceBackend`: the interface of the core for servers
    telemetry, traffic      metrics, samples, captures, observers; splitting requests between versions
"""
