from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from fallback.answer import Label
from fallback.deferral import Source
from gateway.manifest import Manifest, Output, TensorSpec, Training
from gateway.model import Model
from gateway.policy import Policy
from gateway.registry import ModelVersion
from trainer import candidate, digits, export, surgery
from trainer.dataset import Dataset, build
from trainer.errors import NotTrainableError, ParityError
from trainer.examples import encode_inputs
from trainer.features import compute
from trainer.ledger import Row
from trainer.retrain import Rooms, limits

POLICY = Policy(threshold=0.9, alpha=0.1)


def corrections(rooms: Rooms, count: int, *, wrong: bool = False) -> list[Row]:
    """Rows as people would have made them of the first `count` streamed digits; `wrong`: of vandals."""
    found = digits.load()
    rows = []
    for number, index in enumerate(found.stream[:count], start=1):
        label = found.label(index)
        rows.append(
            Row(
                row=number,
                model="digits",
                source=Source.PERSON,
                answer=Label(str((int(label) + 1) % 10) if wrong else label),
                prediction=Label(label),
                reviewed=True,
                audit=False,
                q=1.0,
                inputs_digest=rooms.contents.put(encode_inputs({digits.INPUT: found.tensor((index,))})),
            )
        )
    return rows


def dataset(rooms: Rooms, parent: ModelVersion, rows: list[Row]) -> Dataset:
    return build(
        parent.manifest,
        rows,
        rooms.imports.all("digits"),
        rooms.contents,
        trained_row=0,
        limits=limits(rooms.settings),
    )


def make(rooms: Rooms, parent: ModelVersion, made: Dataset, folder: Path) -> candidate.Candidate:
    return candidate.make(
        parent, made, POLICY, rooms.contents, rooms.settings, folder, metadata={"parent": parent.name}
    )


def test_corrections_make_it_better(rooms: Rooms, parent: ModelVersion, tmp_path: Path) -> None:
    """Three hundred real labels lift accuracy on the 397, and the gate agrees; the export computes what was trained."""
    found = make(rooms, parent, dataset(rooms, parent, corrections(rooms, 300)), tmp_path)
    assert found.decision.promote, found.decision.reasons
    assert found.after.imported.count == 397
    assert found.after.imported.accuracy > found.before.imported.accuracy + 0.02
    assert found.before.all.count == found.before.imported.count + found.before.live.count > 430
    sorting = found.after.sorting
    assert sorting is not None
    assert found.before.sorting is not None
    assert 0 < sorting.e_aurc < sorting.aurc < found.before.sorting.aurc
    assert sorting.ece_tempered < sorting.ece
    assert (sorting.scorer, sorting.alpha) == ("margin", 0.1)
    assert sorting.certified_coverage is not None
    assert sorting.certified_coverage > 0.5
    assert found.fit.converged
    assert found.parity < 1e-5
    loaded = onnx.load_model(found.artefact)
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {"demur.parent": parent.name}
    model = Model.load(found.artefact, device="cpu", threads=1)
    held = digits.load().holdout
    probabilities = model.run({digits.INPUT: digits.load().tensor(held)})[digits.OUTPUT]
    accuracy = float((probabilities.argmax(axis=1) == digits.load().labels[list(held)]).mean())
    assert accuracy == pytest.approx(found.after.imported.accuracy)


def test_labels_of_vandals_do_not_get_through(rooms: Rooms, parent: ModelVersion, tmp_path: Path) -> None:
    """What makes the model worse on the hold-out is not promoted, and the reason says by how much."""
    found = make(rooms, parent, dataset(rooms, parent, corrections(rooms, 300, wrong=True)), tmp_path)
    assert not found.decision.promote
    assert found.decision.reasons[0].startswith(("accuracy on", "recall of", "error among"))


def test_the_same_again_gives_the_same_file(rooms: Rooms, parent: ModelVersion, tmp_path: Path) -> None:
    """Training is deterministic, to the last byte."""
    made = dataset(rooms, parent, corrections(rooms, 50))
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(make(rooms, parent, made, tmp_path / name).artefact.read_bytes())
    assert files[0] == files[1]


def test_a_candidate_can_be_retrained_again(rooms: Rooms, parent: ModelVersion, tmp_path: Path) -> None:
    """What export writes, surgery takes: version after version."""
    found = make(rooms, parent, dataset(rooms, parent, corrections(rooms, 150)), tmp_path)
    second = rooms.registry.publish("digits", found.artefact, parent.manifest)
    (tmp_path / "again").mkdir()
    again = make(rooms, second, dataset(rooms, second, corrections(rooms, 300)), tmp_path / "again")
    assert again.before.all.accuracy > found.before.all.accuracy
    names = [tensor.name for tensor in onnx.load_model(again.artefact).graph.initializer]
    assert len(names) == 4, "no weights of earlier versions pile up in the file"


def test_content_erased_between_reading_and_running_is_left_out(
    rooms: Rooms, parent: ModelVersion, tmp_path: Path
) -> None:
    """A person may have their data erased at any time; a training under way goes on without it."""
    made = dataset(rooms, parent, corrections(rooms, 60))
    for example in made.train[:5]:
        rooms.contents.erase(example.digest)
    layer = surgery.find(onnx.load_model(parent.artefact), digits.OUTPUT)
    cut = tmp_path / "cut.onnx"
    onnx.save_model(surgery.cut(onnx.load_model(parent.artefact), layer), cut)
    model = Model.load(cut, device="cpu", threads=1)
    table = compute(model, surgery.FEATURES, parent.manifest, made.train, rooms.contents, columns=len(layer.weights))
    assert table.examples == made.train[5:]
    assert table.values.shape == (len(made.train) - 5, len(layer.weights))


def test_an_export_that_computes_something_else_is_not_let_out(
    rooms: Rooms, parent: ModelVersion, tmp_path: Path
) -> None:
    """The parity check compares the file, run as it will be served, with what was trained."""
    made = dataset(rooms, parent, corrections(rooms, 30))
    model = onnx.load_model(parent.artefact)
    layer = surgery.find(model, digits.OUTPUT)
    cut = tmp_path / "cut.onnx"
    onnx.save_model(surgery.cut(model, layer), cut)
    features = compute(
        Model.load(cut, device="cpu", threads=1),
        surgery.FEATURES,
        parent.manifest,
        made.holdout,
        rooms.contents,
        columns=512,
    )
    other = export.write(
        model, layer, layer.weights * 1.1, layer.bias, tmp_path / "other.onnx", output=digits.OUTPUT, metadata={}
    )
    assert other.weights.shape == layer.weights.shape
    with pytest.raises(ParityError, match="differs by up to"):
        export.check_parity(
            tmp_path / "other.onnx",
            layer,
            features,
            parent.manifest,
            rooms.contents,
            device="cpu",
            tolerance=1e-3,
            rows_max=100,
        )


LAYER = surgery.LinearLayer(
    node=0,
    add=None,
    feature="f",
    weights=np.zeros((2, 3)),
    bias=np.zeros(3),
    transposed=False,
    element_type=1,
    softmax=True,
)


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (Manifest(model="m", labels=("a", "b")), "gives 3 scores; expected one for each of the 2 labels"),
        (Manifest(model="m", labels=("a", "b", "c"), training=Training(enabled=False)), "training.enabled = false"),
        (Manifest(model="m", labels=("a", "b", "c"), output=Output(activation="softmax")), "both in the graph"),
    ],
)
def test_a_model_that_the_manifest_forbids_or_misdescribes_is_refused(manifest: Manifest, sentence: str) -> None:
    """Each with its reason."""
    with pytest.raises(NotTrainableError, match=sentence):
        candidate.check_fits(LAYER, manifest)


def test_scores_that_nothing_makes_probabilities_are_refused() -> None:
    """Confidences would be logits."""
    layer = surgery.LinearLayer(
        node=0,
        add=None,
        feature="f",
        weights=np.zeros((2, 3)),
        bias=np.zeros(3),
        transposed=False,
        element_type=1,
        softmax=False,
    )
    with pytest.raises(NotTrainableError, match="it is nowhere"):
        candidate.check_fits(layer, Manifest(model="m", labels=("a", "b", "c")))


def test_a_model_without_an_axis_of_rows_runs_row_by_row(tmp_path: Path) -> None:
    """A fixed shape is fed as it is, one example at a time."""
    from onnx import TensorProto, helper, numpy_helper

    from trainer.contents import Contents
    from trainer.examples import Example, Origin

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        initializer=[numpy_helper.from_array(np.ones((2, 3), np.float32), "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    manifest = Manifest(
        model="m", labels=("a", "b", "c"), batched=False, inputs=(TensorSpec(name="x", datatype="FP32", shape=(1, 2)),)
    )
    contents = Contents(tmp_path / "contents")
    examples = [
        Example(
            digest=contents.put(encode_inputs({"x": np.full((1, 2), value, np.float32)})),
            fingerprint=str(value),
            label=0,
            origin=Origin.LIVE,
            fresh=True,
        )
        for value in range(3)
    ]
    table = compute(Model.load(path, device="cpu"), "y", manifest, examples, contents, columns=3)
    np.testing.assert_array_equal(table.values, [[0] * 3, [2] * 3, [4] * 3])
    with pytest.raises(NotTrainableError, match=r"expected shape \[1, 4\], got \[1, 3\]"):
        compute(Model.load(path, device="cpu"), "y", manifest, examples, contents, columns=4)


def test_tolerances_come_from_the_settings(rooms: Rooms) -> None:
    """What the gate lets through is the operator's."""
    settings = msgspec.structs.replace(rooms.settings, gate_accuracy_drop_max=0.25)
    assert candidate.tolerances(settings).accuracy_drop_max == 0.25
