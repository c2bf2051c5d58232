"""A whole gateway for tests: small models on disk, their states in a real server, calls through real channels."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fallback.answer import LabelOption, Task
from fallback.config import Config
from fallback.documents import Documents
from fallback.errors import DemurError
from fallback.tables import Table
from gateway import lifecycle, manifest
from gateway.batching import Batching
from gateway.config import GatewaySettings
from gateway.manifest import Manifest, Output
from gateway.policy import Policy
from gateway.server import Gateway
from tests.onnx_files import model_of

LABELS: Final = ("a", "b", "c")
TASK: Final = Task(question="Which one?", labels=tuple(LabelOption(label=label, key=label) for label in (*LABELS, "z")))
SURE: Final = np.array([[0.05, 0.9, 0.05]], np.float32)
UNSURE: Final = np.array([[0.3, 0.4, 0.3]], np.float32)
# Nothing is audited unless a test says so.
POLICY: Final = Policy(threshold=0.8, audit_share=0.0)
JUDGED: Final = Manifest(
    labels=LABELS,
    task=TASK,
    on_deferral="provisional",
    output=Output(tensor="p"),
    policy=POLICY,
    batching=Batching(max_batch_size=16),
)


def told(version: int, *, scale: int = 1, width: int = 3) -> bytes:
    """A model that gives its input `p` back as `p` (so a test chooses the confidence) and says its version in `v`.

    `scale`: how often the input is copied about before, to make the run take a while.
    """
    nodes = [helper.make_node("Identity", ["x"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{number}", "one"], [f"h{number + 1}"]) for number in range(scale - 1)]
    nodes += [
        helper.make_node("Identity", [f"h{scale - 1}"], ["p"]),
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "version"], ["v"]),
    ]
    graph = helper.make_graph(
        nodes,
        "told",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])],
        [
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", width]),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["rows", 1]),
        ],
        initializer=[
            numpy_helper.from_array(np.eye(width, dtype=np.float32), "one"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(version, np.float32), "version"),
        ],
    )
    return _bytes(graph)


def named() -> bytes:
    """A model that gives its input back as `p`, and names the highest of it: its text, its place; and their sum."""
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["p"]),
            helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["labels", "place"], ["label"], axis=0),
            helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
        ],
        "named",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])],
        [
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("label", TensorProto.STRING, ["rows"]),
            helper.make_tensor_value_info("place", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["rows"]),
        ],
        initializer=[
            helper.make_tensor("labels", TensorProto.STRING, [3], [b"a", b"b", b"c"]),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    return _bytes(graph)


def echo(**types: int) -> bytes:
    """A model that gives each input (rows, 2) back as `<name>_out`."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in types],
        "echo",
        [helper.make_tensor_value_info(name, type_, ["rows", 2]) for name, type_ in types.items()],
        [helper.make_tensor_value_info(f"{name}_out", type_, ["rows", 2]) for name, type_ in types.items()],
    )
    return _bytes(graph)


def table() -> bytes:
    """A model that looks its input `i` up in a table of two rows: anything above 1 makes the run fail."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["y"], axis=0)],
        "table",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["rows"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        initializer=[numpy_helper.from_array(np.array([[1, 2], [3, 4]], np.float32), "t")],
    )
    return _bytes(graph)


def install(folder: Path, model: str, version: str, artefact: bytes, facts: Manifest) -> None:
    """Lay a version down as the registry would, without the trial that a test has no time for."""
    from gateway.model import Model

    home = folder / "models" / model / version
    home.mkdir(parents=True)
    (home / "model.onnx").write_bytes(artefact)
    signature = Model.load(home / "model.onnx", device="cpu", threads=1).signature
    whole = msgspec.structs.replace(
        facts, model=model, version=version, inputs=signature.inputs, outputs=signature.outputs
    )
    (home / "manifest.toml").write_text(manifest.render(whole))


def promote(config: Config, model: str, version: str) -> None:
    """Say in the shared documents that a version is the champion."""
    asyncio.run(_promote(config, model, version))


async def _promote(config: Config, model: str, version: str) -> None:
    documents = Documents.connect(config)
    try:
        key = f"models/{model}"
        found = await documents.read(key)
        states = lifecycle.decode(found.body) if found else lifecycle.ModelStates()
        states = lifecycle.add(states, version, reason="test", time=0)
        states = lifecycle.promote(states, version, reason="test", time=0)
        await documents.write(key, lifecycle.encode(states), expected_revision=found.revision if found else 0)
    finally:
        await documents.close()


def shadow(config: Config, model: str, *versions: str) -> None:
    """Say in the shared documents that versions are in shadow."""

    async def change() -> None:
        documents = Documents.connect(config)
        try:
            found = await documents.read(f"models/{model}")
            assert found is not None
            states = lifecycle.decode(found.body)
            for version in versions:
                states = lifecycle.add(states, version, reason="test", time=0)
                states = lifecycle.shadow(states, version, reason="test", time=0)
            await documents.write(f"models/{model}", lifecycle.encode(states), expected_revision=found.revision)
        finally:
            await documents.close()

    asyncio.run(change())


def settings(config: Config, tables: Mapping[str, Table] | None = None, **fields: Any) -> Config:
    """The same configuration with a gateway on a free port, and `fields` in its table."""
    small = {"grpc_listen": "127.0.0.1:0", "metrics_listen": "", "device": "cpu", "threads": 1, "drain_seconds": 5.0}
    gateway = GatewaySettings(**{**small, **fields})
    named = {name: config.queue(name) for name in config.queue_names()}
    return Config(data_folder=config.data_folder, tables={**(tables or {}), "gateway": gateway}, queues=named)


def credentials(folder: Path, **people: tuple[str, ...]) -> str:
    """A file of identities with their roles, each of whom shows the name as token."""
    path = folder / "credentials.toml"
    path.write_text(
        "".join(
            f'[[identity]]\nname = "{name}"\ntoken_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
            f"roles = {list(roles)}\n"
            for name, roles in people.items()
        )
    )
    return str(path)


@contextmanager
def running(config: Config, *, clerk: bool = False) -> Iterator[Gateway]:
    """A gateway that answers, with or without a clerk; drained afterwards."""
    gateway = Gateway(config, clerk=clerk)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.drain()


def outcome_of(error: BaseException) -> tuple[str, str]:
    """Class and sentence of what a call raised."""
    assert isinstance(error, DemurError)
    return error.code.name, error.message


def _bytes(graph: Any) -> bytes:
    content: bytes = model_of(graph).SerializeToString()
    return content
