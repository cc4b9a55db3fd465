"""What gpu.py measures: each section in a process of its own, which begins with an unused GPU.

Usage: python benchmarks/gpu_sections.py SECTION SETTING FOUND

SETTING is JSON, see `Setting`. Each case is written to the file FOUND as soon as it is measured, as a line of JSON, so
that a section that is stopped loses none. A case that fails is written with its reason, and the next one begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bare_model import call_ms, median_ms
from in_process import closed_loop
from saved_models import BenchModel, keras_model
from server_process import free_port

MIB = 2**20
CALLERS = 8
NUM_VERSIONS = 3
CONVERSION_S = 40
READING_S = 1.0
"""Readings of the memory that follow each other sooner are the same one."""
KERNEL_MIB = 2048
SERVE_SHARE = 0.1
NO_DEVICE = 3
"""The exit code when TensorFlow has no such device: then no other section has it either."""


@dataclass(frozen=True)
class Setting:
    """What all sections are told.

    Attributes:
        device: the TensorFlow device that is measured.
        folder: where the models are.
        names: which of them.
        sizes: rows of a request.
        seconds: length of one measurement.
    """

    device: str
    folder: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    seconds: float

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return "GPU" in self.device.upper()

    @property
    def number(self) -> int:
        """The number of the device."""
        return int(self.device.rpartition(":")[2])

    @property
    def models(self) -> list[BenchModel]:
        """The models on disk, the small ones first."""
        return [BenchModel(name, Path(self.folder) / name) for name in self.names]


@dataclass(frozen=True)
class Found:
    """What was found of one case: numbers by what they measure, facts of the whole run, or why there are none."""

    case: str
    values: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def attempt(case: str, measure: Callable[[], Mapping[str, float]]) -> Found:
    """Measure one case; one that fails takes no other with it."""
    try:
        return Found(case, measure())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what there is to report
        return Found(case, problem=f"{type(error).__name__}: {error}")


# ---------------------------------------------------------------- the sections


def device(setting: Setting) -> Iterator[Found]:
    """The device that a version is loaded on, and that memory grows with what is loaded."""
    import tensorflow as tf

    from tfserve_nb.serving.telemetry.resources import GpuReader

    model = setting.models[0]
    before = GpuReader().read(0)  # TensorFlow has not touched the GPU yet
    if before:
        used = before[setting.number].used_bytes / MIB
        yield Found("before TensorFlow uses it", {"GPU in use, all processes, MiB": used})
    for chosen in (None, setting.device):  # the first one starts the GPU, and nothing but the product sets growth
        case = "deployed, device left to TensorFlow" if chosen is None else f"deployed with device={chosen!r}"
        with deployed(model.version, device=chosen) as deployment:
            deployment.predict(model.rows[:1])
            yield attempt(case, partial(memory, deployment, setting))
    if setting.is_gpu:
        with deployed(model.version, device="/CPU:0") as deployment:
            yield attempt("deployed with device='/CPU:0'", partial(memory, deployment, setting))
        gpu = tf.config.list_physical_devices("GPU")[setting.number]
        facts = tf.config.experimental.get_device_details(gpu)
        build = tf.sysconfig.get_build_info()
        yield Found(
            "facts",
            about={
                "device for TensorFlow": f"{facts.get('device_name')}, compute capability "
                f"{'.'.join(map(str, facts.get('compute_capability', ())))}",
                "CUDA and cuDNN that TensorFlow was built for": f"{build.get('cuda_version')}, "
                f"{build.get('cudnn_version')}",
                "memory grows on demand": "yes" if tf.config.experimental.get_memory_growth(gpu) else "NO",
            },
        )


def answers(setting: Setting) -> Iterator[Found]:
    """Whether the device answers what the CPU answers, by the tolerance of the export check."""
    import tensorflow as tf

    tf32 = tf.config.experimental
    modes = [True, False] if setting.is_gpu else [tf32.tensor_float_32_execution_enabled()]
    for mode in modes:
        tf32.enable_tensor_float_32_execution(mode)
        for model in setting.models:
            case = f"{model.name}, TF32 {'on' if mode else 'off'}" if setting.is_gpu else model.name
            yield attempt(case, partial(_agrees, setting, model))


def speed(setting: Setting) -> Iterator[Found]:
    """Latency and throughput by rows of a request, against the bare call of the same SavedModel."""
    import tensorflow as tf

    for model in setting.models:
        with deployed(model.version, device=setting.device, **_batching(setting)) as deployment:
            with tf.device(setting.device):
                loaded = tf.saved_model.load(str(model.version))
            function = loaded.signatures["serving_default"]
            for size in setting.sizes:
                rows = np.resize(model.rows, (size, *model.rows.shape[1:]))
                yield attempt(f"{model.name}, {rows_text(size)}", partial(_speed, setting, deployment, function, rows))


def memory_per_version(setting: Setting) -> Iterator[Found]:
    """Memory after each of several versions that stay loaded, and after they are gone."""
    for model in setting.models:
        with contextlib.ExitStack() as stack:
            for number in range(1, NUM_VERSIONS + 1):
                options = {"device": setting.device, "keep": NUM_VERSIONS, **_batching(setting)}
                deployment = stack.enter_context(deployed(model.version, model.name, is_kept=number > 1, **options))
                deployment.predict(model.rows[:1])
                case = f"{model.name}, {number} version{'s' if number > 1 else ''} loaded"
                yield attempt(case, partial(memory, deployment, setting))
            with deployed(setting.models[0].version, "other", device="/CPU:0") as other:
                stack.close()  # the server goes on, so that its memory can still be asked for
                yield attempt(f"{model.name}, undeployed", partial(memory, other, setting))


def isolated(setting: Setting) -> Iterator[Found]:
    """A server in this process and an isolated one, while nothing else runs here and while a training does."""
    model = setting.models[0]
    yield attempt("no server, training", partial(_train_alone, setting))
    for is_isolated in (False, True):
        home = "isolated" if is_isolated else "in the kernel"
        with deployed(model.version, home.replace(" ", "_"), isolate=is_isolated, device=setting.device) as deployment:
            for trains in (False, True):
                measure = partial(_load, setting, deployment, model, trains=trains)
                yield attempt(f"{home}, {'training' if trains else 'idle'}", measure)


def limits(setting: Setting) -> Iterator[Found]:
    """Processes that get a part of the GPU: a kernel with a fixed limit, and `tfserve-nb serve` with a share."""
    model = setting.models[0]
    share = f"serve --per_process_gpu_memory_fraction={SERVE_SHARE:g}"
    yield attempt(share, partial(_serve_with_share, setting, model))
    if not setting.is_gpu:
        yield Found(f"isolated, beside a kernel with {KERNEL_MIB} MiB", problem="no GPU: there is no memory to divide")
        return
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[setting.number]
    tf.config.set_logical_device_configuration(gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=KERNEL_MIB)])
    with Training(setting.device):
        time.sleep(setting.seconds)
        with deployed(model.version, isolate=True, device=setting.device) as deployment:
            deployment.predict(model.rows[:1])
            measure = partial(memory, deployment, setting)
            yield attempt(f"isolated, beside a kernel with {KERNEL_MIB} MiB", measure)


def engines(setting: Setting) -> Iterator[Found]:
    """What `deploy(engine="auto")` measures and chooses, and ONNX Runtime on the device."""
    for model in setting.models:
        yield from _chosen_engine(setting, model)
    missing = [name for name in ("onnxruntime", "tf2onnx") if importlib.util.find_spec(name) is None]
    if missing:
        yield Found("ONNX Runtime", problem=f"{' and '.join(missing)} is not installed")
        return
    import onnxruntime
    import tf2onnx

    yield Found("versions", about={"ONNX Runtime, tf2onnx": f"{onnxruntime.__version__}, {tf2onnx.__version__}"})
    for model in setting.models:
        yield from _onnx_runtime(setting, model)


def variants(setting: Setting) -> Iterator[Found]:
    """Keras models deployed from memory, in mixed precision and compiled by XLA, against float32 on the CPU."""
    import keras

    sizes = (1, min(32, setting.sizes[-1]))
    options = {"max_batch_size": sizes[-1], "allowed_batch_sizes": sizes}
    for model in setting.models:
        rows = model.rows[: sizes[-1]]
        network = keras_model(model.name)
        with deployed(network, device="/CPU:0", **options) as deployment:
            expected = deployment.predict(rows)
        for optimize in (None, "xla"):
            for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
                keras.config.set_dtype_policy(policy)
                try:
                    variant = keras_model(model.name)
                finally:
                    keras.config.set_dtype_policy("float32")
                variant.set_weights(network.get_weights())
                measure = partial(
                    _variant, setting, variant, rows, expected,
                    {"device": setting.device, "optimize": optimize, **options},
                )  # fmt: skip
                yield attempt(f"{model.name}, {policy}{', XLA' if optimize else ''}", measure)


SECTIONS: dict[str, Callable[[Setting], Iterator[Found]]] = {
    "device": device,
    "answers": answers,
    "speed": speed,
    "memory": memory_per_version,
    "isolated": isolated,
    "limits": limits,
    "engines": engines,
    "variants": variants,
}


# ---------------------------------------------------------------- what they measure


@contextlib.contextmanager
def deployed(model: Any, name: str = "bench", *, is_kept: bool = False, **options: Any) -> Iterator[Any]:
    """A deployed model, undeployed at the end unless somebody else does that."""
    import tfserve_nb

    deployment = tfserve_nb.deploy(str(model) if isinstance(model, Path) else model, name, **options)
    try:
        yield deployment
    finally:
        if not is_kept:
            deployment.undeploy()


def memory(deployment: Any, setting: Setting) -> dict[str, float]:
    """The memory of a server's process, and of the GPU where `nvidia-ml-py` can ask the driver."""
    import tensorflow as tf

    time.sleep(READING_S)
    resources = deployment.resources()
    found = {"RAM of the server, MiB": resources.rss_bytes / MIB}
    if not setting.is_gpu:
        return found
    for gpu in resources.gpus:
        if gpu.index == setting.number:
            found["GPU in use, all processes, MiB"] = gpu.used_bytes / MIB
            found["of the GPU's memory, %"] = 100 * gpu.used_bytes / gpu.total_bytes
            found["GPU in use by the server, MiB"] = gpu.own_bytes / MIB
            found["TensorFlow's allocator, MiB"] = (gpu.tensorflow_bytes or 0) / MIB
            return found
    if resources.pid == os.getpid():
        used = tf.config.experimental.get_memory_info(setting.device.lstrip("/"))["current"]
        found["TensorFlow's allocator, MiB"] = used / MIB
    return found


def difference(found: np.ndarray, expected: np.ndarray, computed_in: str = "float32") -> float:
    """The largest difference between two arrays of outputs.

    Raises:
        ExportFailed: if it is beyond the tolerance of the export check.
    """
    from tfserve_nb.export.check import compare_outputs

    return compare_outputs({"y": expected}, {"y": found.astype(expected.dtype)}, computed_in=computed_in)


def rows_text(number: int) -> str:
    """Such as `1 row`."""
    return f"{number} row{'s' if number > 1 else ''}"


def _agrees(setting: Setting, model: BenchModel) -> dict[str, float]:
    sizes = (1, len(model.rows))
    options = {"device": setting.device, "max_batch_size": sizes[-1], "allowed_batch_sizes": sizes}
    with deployed(model.version, **options) as deployment:
        return {
            f"largest difference, {rows_text(size)}": difference(
                deployment.predict(model.rows[:size]), model.answers[:size]
            )
            for size in sizes
        }


def _batching(setting: Setting) -> dict[str, Any]:
    return {"max_batch_size": setting.sizes[-1], "allowed_batch_sizes": setting.sizes}


def _speed(setting: Setting, deployment: Any, function: Any, rows: np.ndarray) -> dict[str, float]:
    import tensorflow as tf

    with tf.device(setting.device):
        call_ms(function, rows, 0.1)  # the first call compiles
        bare_ms = call_ms(function, rows, setting.seconds)
    closed_loop(deployment, rows, 1, 0.1)
    alone = closed_loop(deployment, rows, 1, setting.seconds)
    together = closed_loop(deployment, rows, CALLERS, setting.seconds)
    rows_per_s = len(rows) * together[f"rate@{CALLERS}"]
    return {
        "bare call, p50, ms": bare_ms,
        "d.predict, p50, ms": alone["p50@1"],
        "p99, ms": alone["p99@1"],
        "bare call, rows/s": 1e3 * len(rows) / bare_ms,
        f"d.predict, {CALLERS} callers, rows/s": rows_per_s,
        "over the bare call": rows_per_s / (1e3 * len(rows) / bare_ms),
    }


def _train_alone(setting: Setting) -> dict[str, float]:
    with Training(setting.device) as training:
        time.sleep(2 * setting.seconds)
        return {"training steps/s": training.steps_per_s()}


def _load(setting: Setting, deployment: Any, model: BenchModel, *, trains: bool) -> dict[str, float]:
    """What clients in another process see."""
    with Training(setting.device) if trains else contextlib.nullcontext() as training:
        result = deployment.benchmark(
            closed=CALLERS, protocol="binary", values=model.rows, seconds=2 * setting.seconds, warmup_s=0.5
        )
        found = {"requests/s": result.summary.rate}
        found |= {f"{one.name}, ms": one.ms for one in result.summary.percentiles if one.quantile in (0.5, 0.99)}
        if training is not None:
            found["training steps/s"] = training.steps_per_s()
        return found | memory(deployment, setting)


class Training:
    """`fit` of the CNN in a thread of this process, for as long as the `with` block lasts."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._num_steps = 0
        self._error: BaseException | None = None
        self._first_step = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)

    def __enter__(self) -> Training:
        self._thread.start()
        self._first_step.wait()
        if self._error is not None:
            raise self._error
        self._started_s, self._num_steps = time.perf_counter(), 0
        return self

    def steps_per_s(self) -> float:
        """Steps since the first one."""
        return self._num_steps / (time.perf_counter() - self._started_s)

    def __exit__(self, *_: object) -> None:
        self._network.stop_training = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._fit()
        except Exception as error:  # noqa: BLE001 - raised where the training was asked for
            self._error = error
        finally:
            self._first_step.set()

    def _fit(self) -> None:
        import keras
        import tensorflow as tf

        def count(*_: object, **__: object) -> None:
            self._num_steps += 1
            self._first_step.set()

        with tf.device(self._device):
            self._network = keras_model("cnn")
            self._network.compile("adam", "sparse_categorical_crossentropy")
            x = np.random.default_rng(7).random((2048, 28, 28, 1), np.float32)
            y = np.zeros(len(x), np.int32)
            counting = keras.callbacks.LambdaCallback(on_train_batch_end=count)
            self._network.fit(x, y, batch_size=64, epochs=1_000_000, verbose=0, callbacks=[counting])


def _serve_with_share(setting: Setting, model: BenchModel) -> dict[str, float]:
    import httpx

    import tfserve_nb

    port, grpc_port, token = free_port(), free_port(), "benchmark"
    Path("token").write_text(token)
    command = [
        sys.executable, "-m", "tfserve_nb", "serve", f"--rest_api_port={port}", f"--port={grpc_port}",
        "--model_name=bench", f"--model_base_path={model.base}", f"--device={setting.device}",
        f"--per_process_gpu_memory_fraction={SERVE_SHARE}", "--auth_token_file=token",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "TF_FORCE_GPU_ALLOW_GROWTH"}
    url = f"http://127.0.0.1:{port}"
    with Path("serve.log").open("w") as log, subprocess.Popen(
        command, stdout=log, stderr=log, env=environment
    ) as process:  # fmt: skip
        try:
            while True:
                if process.poll() is not None:
                    raise RuntimeError(f"serve ended: {Path('serve.log').read_text()[-300:]}")
                with contextlib.suppress(httpx.TransportError):
                    status = httpx.get(f"{url}/v1/models/bench", headers={"Authorization": f"Bearer {token}"})
                    if '"AVAILABLE"' in status.text:
                        break
                time.sleep(0.1)
            deployment = tfserve_nb.connect(url, token)
            found = difference(deployment.predict(model.rows), model.answers)
            return {"largest difference": found, **memory(deployment, setting)}
        finally:
            process.terminate()


def _chosen_engine(setting: Setting, model: BenchModel) -> Iterator[Found]:
    try:
        options = {"check": model.rows, "device": setting.device, **_batching(setting)}
        with deployed(model.version, engine="auto", **options) as deployment:
            for one in deployment.measure_engines():
                if one.agrees and one.ms is not None:
                    case = f"{model.name}, engine {one.engine}, {rows_text(one.batch_size)}"
                    yield Found(case, {"p50, ms": one.ms, "answers by default": float(one.is_chosen)})
                else:
                    yield Found(f"{model.name}, engine {one.engine}", problem=one.reason)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime is measured all the same
        yield Found(f"{model.name}, engine='auto'", problem=f"{type(error).__name__}: {error}")


def _onnx_runtime(setting: Setting, model: BenchModel) -> Iterator[Found]:
    provider = "CUDAExecutionProvider" if setting.is_gpu else "CPUExecutionProvider"
    case = f"{model.name}, ONNX Runtime, {provider}"
    try:
        session = _onnx_session(model, provider)
    except Exception as error:  # noqa: BLE001 - the next model may convert
        yield Found(case, problem=f"{type(error).__name__}: {error}")
        return
    (name,) = (one.name for one in session.get_inputs())

    def measure(size: int) -> dict[str, float]:
        run = partial(session.run, None, {name: np.resize(model.rows, (size, *model.rows.shape[1:]))})
        expected = np.resize(model.answers, (size, *model.answers.shape[1:]))
        found = difference(run()[0], expected)
        return {"p50, ms": median_ms(run, setting.seconds), "largest difference": found}

    for size in setting.sizes:
        yield attempt(f"{case}, {rows_text(size)}", partial(measure, size))


def _onnx_session(model: BenchModel, provider: str) -> Any:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu in its place")
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries from the packages that TensorFlow brought
    path = Path(f"{model.name}.onnx").absolute()
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model.version), "--opset", "18",
               "--output", str(path)]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=CONVERSION_S)
    session = onnxruntime.InferenceSession(path, providers=[provider])
    if provider not in session.get_providers():  # it goes on with the CPU, without an error
        raise RuntimeError(f"{provider} could not be started; ONNX Runtime would use {session.get_providers()}")
    return session


def _variant(
    setting: Setting, network: Any, rows: np.ndarray, expected: np.ndarray, options: Mapping[str, Any]
) -> dict[str, float]:
    started_s = time.perf_counter()
    with deployed(network, **options) as deployment:
        found = {"deploy, s": time.perf_counter() - started_s}
        policy = network.dtype_policy.compute_dtype
        found["largest difference"] = difference(deployment.predict(rows), expected, computed_in=policy)
        for batch in (rows[:1], rows):
            closed_loop(deployment, batch, 1, 0.1)
            found[f"{rows_text(len(batch))}, p50, ms"] = closed_loop(deployment, batch, 1, setting.seconds / 2)["p50@1"]
    return found


def main() -> int:
    """Measure a section."""
    section, told, path = sys.argv[1:]
    setting = Setting(**json.loads(told))
    import tensorflow as tf

    devices = [one.name.removeprefix("/physical_device:") for one in tf.config.list_physical_devices()]
    if setting.device.lstrip("/").upper() not in devices:
        print(f"TensorFlow has no {setting.device} here, but {', '.join(devices)}", file=sys.stderr)
        return NO_DEVICE
    with Path(path).open("w") as file:
        for found in SECTIONS[section](setting):
            file.write(json.dumps(dataclasses.asdict(found)) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
