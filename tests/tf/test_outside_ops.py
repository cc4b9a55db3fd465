"""Models that reach outside of their graph are found out, and run on the rows of users only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers.saved_models import write_half_plus_two

import tfserve_nb
from tfserve_nb.api.benchmark import benchmark_url
from tfserve_nb.bench.options import Options
from tfserve_nb.errors import FailedPrecondition, InvalidOption
from tfserve_nb.export.graph.effects import effects_of
from tfserve_nb.export.signatures import SAVED_MODEL_FILE, read_meta_graph, read_saved_model
from tfserve_nb.notebook.overview import Overview
from tfserve_nb.serving.engines.saved_model.session import SavedModelServable, SessionOptions

pytestmark = pytest.mark.usefixtures("own_folder")


def write(text: Any) -> Any:
    with tf.control_dependencies([tf.io.write_file("written.txt", text)]):
        return tf.identity(text)


def in_loop(text: Any) -> Any:
    return tf.map_fn(write, text)


def in_branch(text: Any) -> Any:
    return tf.cond(tf.size(text) > 1000, lambda: tf.fill(tf.shape(text), write(text[0])), lambda: text)


def in_dataset(text: Any) -> Any:
    data = tf.data.Dataset.from_tensor_slices(text).map(tf.io.read_file)
    return data.reduce("", lambda before, now: before + now)[None]


def from_lines(text: Any) -> Any:
    return tf.data.TextLineDataset(text).reduce("", lambda before, now: before + now)[None]


def printed(where: str) -> Callable[[Any], Any]:
    def call(text: Any) -> Any:
        tf.print(text, **({"output_stream": where} if where else {}))
        return tf.identity(text)

    return call


def cached(file: str) -> Callable[[Any], Any]:
    def call(text: Any) -> Any:
        data = tf.data.Dataset.from_tensor_slices(text).cache(file)
        return data.reduce("", lambda before, now: before + now)[None]

    return call


def proto(source: str) -> Callable[[Any], Any]:
    def call(text: Any) -> Any:
        names = {"message_type": "google.protobuf.Any", "field_names": ["type_url"], "descriptor_source": source}
        decoded = tf.raw_ops.DecodeProtoV2(bytes=text, output_types=[tf.string], **names)
        return tf.raw_ops.EncodeProto(sizes=decoded.sizes, values=decoded.values, **names)

    return call


def saving(text: Any) -> Any:
    tf.raw_ops.SaveV2(prefix="other", tensor_names=["x"], shape_and_slices=[""], tensors=[text])
    return tf.identity(text)


def restoring(text: Any) -> Any:
    read = tf.raw_ops.RestoreV2(prefix="other", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.string])
    return text + read[0]


def python(text: Any) -> Any:
    return tf.ensure_shape(tf.py_function(lambda x: x, [text], tf.string), [None])


def summary(text: Any) -> Any:
    writer = tf.raw_ops.SummaryWriter(shared_name="w")
    tf.raw_ops.CreateSummaryFileWriter(writer=writer, logdir="logs", max_queue=1, flush_millis=1, filename_suffix="")
    tf.raw_ops.WriteSummary(writer=writer, step=1, tensor=text, tag="t", summary_metadata="")
    return tf.identity(text)


def table(text: Any) -> Any:
    handle = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    tf.raw_ops.InitializeTableFromTextFileV2(
        table_handle=handle, filename="/etc/hosts", key_index=-2, value_index=-1, vocab_size=-1, delimiter="\t"
    )
    found = tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=text, default_value=tf.constant(0, tf.int64))
    return tf.as_string(found)


def saved(call: Callable[[Any], Any], path: Path = Path("model")) -> Path:
    """A SavedModel of it in a folder."""
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    module.serve = tf.function(
        lambda x: {"y": call(x)}, input_signature=[tf.TensorSpec([None], tf.string, "x")], autograph=False
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


def outside_ops_of(path: Path | str) -> tuple[str, ...]:
    return effects_of(read_meta_graph(path), path).outside_ops


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (in_loop, ("WriteFile",)),
        (in_branch, ("WriteFile",)),
        (in_dataset, ("ReadFile",)),
        (from_lines, ("TextLineDataset",)),
        (printed("file:///tmp/x"), ("PrintV2",)),
        (printed(""), ()),
        (cached("file"), ("CacheDatasetV2",)),
        (cached(""), ()),
        (proto("/etc/descriptors.pb"), ("DecodeProtoV2", "EncodeProto")),
        (proto("local://"), ()),
        (proto("bytes://"), ()),
        (saving, ("SaveV2",)),
        (restoring, ("RestoreV2",)),
        (python, ("EagerPyFunc",)),
        (summary, ("CreateSummaryFileWriter", "WriteSummary")),
        (tf.io.matching_files, ("MatchingFiles",)),
        (table, ("InitializeTableFromTextFileV2",)),
        (tf.identity, ()),
    ],
)
def test_ops_that_reach_outside_are_found_wherever_they_hide(
    call: Callable[[Any], Any], found: tuple[str, ...]
) -> None:
    assert outside_ops_of(saved(call)) == found


class Words(tf.Module):
    """Numbers of words, from a file that is stored with the model."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        file.write_text("cat\ndog\n")
        line, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        init = tf.lookup.TextFileInitializer(str(file), tf.string, line, tf.int64, number)
        self.table = tf.lookup.StaticHashTable(init, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
    def __call__(self, x: Any) -> Any:
        """The number of each word."""
        return {"y": self.table.lookup(x)}


def test_a_vocabulary_of_its_own_is_no_file_outside_and_one_elsewhere_is() -> None:
    tf.saved_model.save(Words(Path("words.txt")), "model")
    assert outside_ops_of("model") == ()

    changed = read_saved_model("model")
    changed.meta_graphs[0].asset_file_def[0].filename = "../../secret.txt"
    Path("model", SAVED_MODEL_FILE).write_bytes(changed.SerializeToString())

    assert outside_ops_of("model") == ("InitializeTableFromTextFileV2",)


@pytest.mark.parametrize("linked", ["assets", "assets/words.txt"])
def test_a_vocabulary_that_is_a_link_to_elsewhere_is_a_file_outside(linked: str) -> None:
    tf.saved_model.save(Words(Path("words.txt")), "model")
    link = Path("model", linked)
    elsewhere = link.rename("elsewhere").absolute()
    link.symlink_to(elsewhere)

    assert outside_ops_of("model") == ("InitializeTableFromTextFileV2",)

    link.unlink()
    elsewhere.rename("model/own")
    link.symlink_to(Path("model/own").absolute())
    assert outside_ops_of("model") == ()


def test_an_op_of_an_earlier_tensorflow_that_reads_a_file_is_found() -> None:
    meta_graph = read_meta_graph(saved(tf.identity))
    node = meta_graph.graph_def.library.function[0].node_def.add(name="words", op="Skipgram")
    node.attr["filename"].s = b"/etc/hosts"

    assert effects_of(meta_graph, "model").outside_ops == ("Skipgram",)


def test_the_checkpoint_ops_of_tensorflow_1_are_its_own_until_a_signature_fetches_them() -> None:
    meta_graph = read_meta_graph(write_half_plus_two(Path("model")))
    assert effects_of(meta_graph, "model").outside_ops == ()

    meta_graph.signature_def["steal"].outputs["y"].name = meta_graph.saver_def.save_tensor_name

    assert effects_of(meta_graph, "model").outside_ops == ("MergeV2Checkpoints", "SaveV2")


def test_nothing_of_a_model_that_is_not_allowed_runs() -> None:
    path = saved(in_loop)

    with pytest.raises(FailedPrecondition, match=r"its graph reaches outside \(WriteFile\); .*--allow_ops=WriteFile"):
        SavedModelServable(path, options=SessionOptions(allowed_ops=frozenset({"ReadFile"})))

    servable = SavedModelServable(path, options=SessionOptions(allowed_ops=frozenset({"WriteFile"})))
    servable.run("serving_default", {"x": np.array([b"a"], object)})
    servable.close()
    assert Path("written.txt").read_text() == "a"


@pytest.mark.parametrize("kind", ["path", "live"])
def test_a_model_that_writes_files_is_deployed_without_a_run_and_says_so(kind: str) -> None:
    model: Any = str(saved(in_loop))
    if kind == "live":
        model = tf.Module()
        model.serve = tf.function(
            lambda x: {"y": in_loop(x)}, input_signature=[tf.TensorSpec([None], tf.string, "x")], autograph=False
        )
    said: list[str] = []

    handle = tfserve_nb.deploy(model, "writer", progress=lambda event: said.append(event.detail))

    assert not Path("written.txt").exists()
    assert "not compared: made-up rows are not run on such a model (give some: --check)" in " ".join(said)
    assert "its graph reaches outside (WriteFile)" in " ".join(said)
    notes = handle.status().versions[0].notes
    assert notes[0] == "its graph reaches outside (WriteFile)"
    assert notes[1].startswith("requests run one at a time: what reaches outside is run for requests only")
    assert "writer, version 1: its graph reaches outside (WriteFile)" in " ".join(repr(Overview((handle,))).split())
    answers = handle.predict(np.array(["a", "b"], object))
    assert list(np.ravel(answers)) == [b"a", b"b"]
    assert Path("written.txt").exists()


def test_rows_of_the_user_are_run() -> None:
    said: list[str] = []

    tfserve_nb.deploy(
        str(saved(in_loop)),
        "writer",
        check=np.array(["mine"], object),
        progress=lambda event: said.append(event.detail),
    )

    assert Path("written.txt").read_text() == "mine"
    assert any(text.startswith("1 rows agree; its graph reaches outside (WriteFile)") for text in said)


@pytest.mark.parametrize("options", [{}, {"sweep": True}, {"protocol": "kernel"}, {"versions": (1, 1)}], ids=str)
def test_a_benchmark_sends_no_made_up_rows(options: dict[str, Any]) -> None:
    handle = tfserve_nb.deploy(str(saved(in_loop)), "writer")

    with pytest.raises(InvalidOption, match=r"made-up rows are not sent to .*reaches outside \(WriteFile\)") as caught:
        handle.benchmark(seconds=0.2, warmup_s=0, **options)

    assert caught.value.hint.startswith("give rows: values=ROWS")
    assert not Path("written.txt").exists()


def test_a_benchmark_sends_no_made_up_rows_by_url_or_to_a_version_that_the_traffic_may_choose() -> None:
    handle = tfserve_nb.deploy(str(saved(tf.identity, Path("plain"))), "writer")
    tfserve_nb.deploy(str(saved(in_loop)), "writer", canary=1)
    options = Options(seconds=0.2, warmup_s=0, closed=1)

    with pytest.raises(InvalidOption, match="made-up rows are not sent to .*WriteFile"):
        benchmark_url(handle.rest_url, handle.token, options, Path("kept"))
    with pytest.raises(InvalidOption, match="made-up rows are not sent to .*WriteFile"):
        handle.run_benchmark(options)
    benchmark_url(f"{handle.rest_url}/versions/1", handle.token, options, Path("kept"))
    assert not Path("written.txt").exists()
    handle.benchmark(seconds=0.2, warmup_s=0, closed=1, version=2, values=np.array(["mine"], object))
    assert Path("written.txt").read_text() == "mine"


@pytest.mark.parametrize("isolate", [False, True])
def test_copies_and_replays_of_a_model_that_writes_files_are_refused(isolate: bool) -> None:
    handle = tfserve_nb.deploy(str(saved(tf.identity, Path("plain"))), "writer", isolate=isolate)
    handle.capture()
    handle.predict(np.array(["a"], object))
    model = str(saved(in_loop))
    refused = (
        r"cannot get copies of requests: its graph reaches outside \(WriteFile\), and a copy would do that once more"
    )

    with pytest.raises(InvalidOption, match=refused):
        tfserve_nb.deploy(model, "writer", shadow=50)
    tfserve_nb.deploy(model, "writer", stage=True)
    staged = handle.versions[-1]
    with pytest.raises(InvalidOption, match=refused):
        handle.shadow(staged)
    with pytest.raises(InvalidOption, match="without copies only"):
        handle.ab_test(1, staged)
    with pytest.raises(InvalidOption, match=f"nothing can be replayed onto version {staged} of writer: its graph"):
        handle.replay(staged)
    with pytest.raises(InvalidOption, match="made-up rows are not sent to"):
        handle.benchmark(version=staged, seconds=0.2)
    handle.save_warmup(staged)
    assert any("no rows were given to run" in note for note in handle.diff(1, staged).notes)
    assert not Path("written.txt").exists()
    handle.diff(1, staged, rows=np.array(["mine"], object))
    assert Path("written.txt").read_text() == "mine"
