"""What users of other model servers complain about, each by name: it does not happen here.

The models are real and slow where a request says so (`tests.onnx_files.timed`): a first request keeps a model busy,
and what is asked meanwhile waits.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest
import redis

from demur import kserve
from fallback import embedded
from fallback.config import Config, RedisSettings
from fallback.errors import InvalidError
from gateway.batching import Batching, QueuePolicy
from gateway.champion import Champion
from gateway.model import Model
from gateway.registry import Registry
from gateway.server import Gateway
from gateway.slabs import Slab
from tests.live_gateway import JUDGED, POLICY, install, promote, running, settings
from tests.onnx_files import timed

INFER = "/inference.GRPCInferenceService/ModelInfer"
READY = "/inference.GRPCInferenceService/ModelReady"
SECONDS = 20.0
# Rounds of runs that take half a second and more, some tenths of a second, and none.
LONGER, LONG, SHORT = 25_000, 10_000, 0
ROWS_MAX = 4
OVERRIDE = QueuePolicy(allow_timeout_override=True)
MODELS = {
    "limit": Batching(max_batch_size=ROWS_MAX, instances=1),
    "split": Batching(max_batch_size=ROWS_MAX, instances=2),
    "timeout": Batching(default_queue_policy=OVERRIDE, instances=1),
    "deadline": Batching(instances=1),
    "cancel": Batching(instances=1),
    "ordered": Batching(preserve_ordering=True, max_batch_size=1, instances=2),
    "levels": Batching(priority_levels=2, default_priority_level=2, max_batch_size=1, instances=1),
}


class Stand:
    """A gateway on one transport, and a client of it."""

    def __init__(self, gateway: Gateway, channel: grpc.Channel) -> None:
        self.gateway = gateway
        self._channel = channel
        self._infer: Any = channel.unary_unary(INFER)

    def ask(self, model: str, x: np.ndarray, *, seconds: float = SECONDS, **parameters: int) -> Any:
        """Begin a request; returns the call."""
        message = kserve.ModelInferRequest(model_name=model)
        message.inputs.add(name="x", datatype="FP32", shape=x.shape)
        message.raw_input_contents.append(x.tobytes())
        for name, value in parameters.items():
            message.parameters[name].int64_param = value
        return self._infer.future(message.SerializeToString(), timeout=seconds)

    def busy(self, model: str, *, rounds: int = LONG) -> Any:
        """Keep a model busy for a while; returns the call once the run is under way."""
        call = self.ask(model, rows(1, rounds=rounds))
        batcher = self.gateway.champions.find(model).batcher
        wait_until(lambda: batcher._running > 0)
        return call

    def waiting(self, model: str, count: int) -> None:
        """Return once so many rows wait."""
        wait_until(lambda: self.gateway.champions.find(model).batcher.rows == count)

    def ran(self, model: str) -> float:
        """Return how many rows the model was run on."""
        found = self.gateway.metrics.registry.get_sample_value("demur_batch_rows_sum", {"model": model})
        assert found is not None
        return found


@pytest.fixture(scope="module", params=["cq", "aio"])
def stand(
    server: embedded.Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stand]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("complaints")
    config = settings(
        Config(data_folder=folder), {"redis": RedisSettings(url=server.url)}, transport=str(request.param)
    )
    for name, batching in MODELS.items():
        lay_down(config, name, "1", batching=batching)
        promote(config, name, "1")
    with running(config) as gateway, grpc.insecure_channel(gateway.address) as channel:
        yield Stand(gateway, channel)


def lay_down(config: Config, model: str, version: str, *, batching: Batching | None = None, weight: int = 1) -> None:
    facts = msgspec.structs.replace(JUDGED, batching=batching or Batching())
    install(config.data_folder, model, version, timed(weight=weight).SerializeToString(), facts)


def rows(count: int, *, rounds: int = SHORT, sure: float = 0.9) -> np.ndarray:
    """Rows that say how sure the model is to be, and how long it is to take."""
    rest = (1 - sure) / 2
    return np.repeat(np.array([[rest, sure, rest, rounds]], np.float32), count, axis=0)


def outputs(call: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a reply's `p` and `n`."""
    raws = kserve.ModelInferResponse.FromString(call.result()).raw_output_contents
    return np.frombuffer(raws[0], np.float32).reshape(-1, 3), np.frombuffer(raws[1], np.float32)


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_batch_limit_counts_rows_not_requests(stand: Stand) -> None:
    """Requests of 3 and of 1 rows: no batch has more than 4 rows, and those that fit are together."""
    first = stand.busy("limit", rounds=LONGER)
    counts = (3, 1, 3, 3, 1, 4, 1)
    calls = [stand.ask("limit", rows(count)) for count in counts]
    stand.waiting("limit", sum(counts))
    assert not first.done()
    found = [set(outputs(call)[1].tolist()) for call in calls]
    assert all(len(sizes) == 1 and max(sizes) <= ROWS_MAX for sizes in found)
    assert {4.0} in found


def test_a_split_gives_every_caller_their_own_rows(stand: Stand) -> None:
    """What waits is run in batches of others' rows, two at a time; each row of a reply is its caller's."""
    first = [stand.busy("split"), stand.ask("split", rows(1, rounds=LONG))]
    asked = [rows(1 + number % 3, sure=0.85 + number / 400) for number in range(40)]
    calls = [stand.ask("split", x) for x in asked]
    found = [outputs(call) for call in calls]
    for x, (p, _) in zip(asked, found, strict=True):
        assert np.array_equal(p, x[:, :3])
    assert max(n.max() for _, n in found) > 3
    for call in first:
        outputs(call)


def test_a_queue_timeout_comes_while_a_run_is_under_way(stand: Stand) -> None:
    """By Triton's parameter `timeout`, in microseconds; what it was waiting behind is still running."""
    first = stand.busy("timeout", rounds=LONGER)
    call = stand.ask("timeout", rows(1), timeout=1_000)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "longer than its model lets it" in call.details()
    assert not first.done()
    outputs(first)
    assert stand.ran("timeout") == 1


def test_a_clients_deadline_ends_the_request(stand: Stand) -> None:
    """It gives its place in the queue up while a run is under way, and costs no inference."""
    first = stand.busy("deadline", rounds=LONGER)
    calls = [stand.ask("deadline", rows(1), seconds=0.05) for _ in range(3)]
    for call in calls:
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stand.waiting("deadline", 0)
    assert not first.done()
    outputs(first)
    outputs(stand.ask("deadline", rows(1)))
    assert stand.ran("deadline") == 2


def test_a_cancelled_caller_ends_nothing_but_its_own_call(stand: Stand) -> None:
    """Cancelled while it waits, and while it runs: others of the batch and later ones are answered."""
    first = stand.busy("cancel")
    calls = [stand.ask("cancel", rows(1)) for _ in range(4)]
    stand.waiting("cancel", 4)
    for call in (first, *calls[:2]):
        call.cancel()
    for call in calls[2:]:
        outputs(call)
    outputs(stand.ask("cancel", rows(1)))
    assert stand.ran("cancel") == 4


def test_the_first_level_goes_first(stand: Stand) -> None:
    """By Triton's parameter `priority`, whoever came before."""
    first = stand.busy("levels")
    ended: list[int] = []
    calls = []
    for number, parameters in enumerate(({}, {"priority": 2}, {"priority": 1}, {"priority": 9}, {"priority": 1})):
        call = stand.ask("levels", rows(1, rounds=300), **parameters)
        call.add_done_callback(lambda _, number=number: ended.append(number))
        calls.append(call)
        stand.waiting("levels", number + 1)
    for call in (first, *calls):
        outputs(call)
    wait_until(lambda: len(ended) == len(calls))
    assert ended == [2, 4, 0, 1, 3]


def test_replies_keep_the_order_of_arrival_where_the_model_says_so(stand: Stand) -> None:
    """What is done at once by a second instance waits for the first one's reply."""
    ended: list[int] = []
    calls = [stand.busy("ordered")]
    calls += [stand.ask("ordered", rows(1)) for _ in range(3)]
    for number, call in enumerate(calls):
        call.add_done_callback(lambda _, number=number: ended.append(number))
    for call in calls:
        outputs(call)
    wait_until(lambda: len(ended) == len(calls))
    assert ended[0] == 0


@contextlib.contextmanager
def spied(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> Iterator[list[str]]:
    """Call `look` in each warm-up, before it; yields the names of the threads that loaded or warmed up."""
    threads: list[str] = []
    load, warm_up = Model.load.__func__, Model.warm_up  # type: ignore[attr-defined]  # a class method's own function

    def loading(cls: type[Model], /, path: Path, **options: Any) -> Model:
        threads.append(threading.current_thread().name)
        found: Model = load(cls, path, **options)
        return found

    def warming(model: Model, rows: Sequence[int], shapes: Any = None) -> None:
        threads.append(threading.current_thread().name)
        look()
        warm_up(model, rows, shapes)

    with monkeypatch.context() as patch:
        patch.setattr(Model, "load", classmethod(loading))
        patch.setattr(Model, "warm_up", warming)
        yield threads


def test_a_model_is_not_ready_before_it_is_warm(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it warms up ModelReady says no; then it says yes."""
    config = settings(config)
    lay_down(config, "m", "1")
    ready = kserve.ModelReadyRequest(name="m").SerializeToString()
    said: list[bool] = []
    with running(config) as gateway, grpc.insecure_channel(gateway.address) as channel:
        ask: Any = channel.unary_unary(READY)

        def look() -> bool:
            reply = kserve.ModelReadyResponse.FromString(ask(ready, timeout=SECONDS))
            return bool(reply.ready)

        with spied(monkeypatch, lambda: said.append(look())):
            promote(config, "m", "1")
            wait_until(look)
    assert len(said) >= 2
    assert not any(said)


def test_a_reload_does_not_hold_requests_up(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread that serves loads or warms up; while that goes on, requests are answered by the old version."""
    config = settings(config)
    for version in ("1", "2"):
        lay_down(config, "m", version)
    promote(config, "m", "1")
    with running(config) as gateway, grpc.insecure_channel(gateway.address) as channel:
        stand = Stand(gateway, channel)
        outputs(stand.ask("m", rows(1)))
        versions: list[str] = []

        def look() -> None:
            reply = kserve.ModelInferResponse.FromString(stand.ask("m", rows(1)).result())
            versions.append(reply.model_version)

        with spied(monkeypatch, look) as threads:
            promote(config, "m", "2")
            wait_until(lambda: _version(gateway, "m") == "2")
    assert set(versions) == {"1"}
    assert not [name for name in threads if name.startswith(("transport", "batcher", "timer"))]


def _version(gateway: Gateway, model: str) -> str:
    current = gateway.champions.current(model)
    return "" if current is None else current.version


# More than what malloc keeps for itself when it is freed (M_MMAP_THRESHOLD: 32 MiB at most).
WEIGHT = 10_000_000
MIB = 1024 * 1024


def _resident_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / MIB


def _standing() -> tuple[int, int]:
    """Return how many threads and open files this process has."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def registry(config: Config) -> Registry:
    """Three versions of 38 MiB each; the third has an operator that nobody knows."""
    for version in ("1", "2", "3"):
        lay_down(config, "m", version, weight=WEIGHT)
    path = config.data_folder / "models" / "m" / "3" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"ReduceMin", b"ReduceMun").replace(b"Split", b"Splut"))
    return Registry(config.data_folder / "models")


def test_memory_goes_when_a_version_does(registry: Registry) -> None:
    """Each replaced session is gone, and what is resident after six swaps is what one version needs."""
    champion = Champion(device="cpu", threads=1)
    gone, live = [], champion.swap(registry.get("m", "1"), POLICY)
    before = _resident_mib()
    for number in range(6):
        gone.append(weakref.ref(live.model._session))
        live = champion.swap(registry.get("m", str(2 - number % 2)), POLICY)
    assert _resident_mib() - before < 60
    assert [found() for found in gone] == [None] * 6
    champion.close()
    assert live.model._session is None


def test_a_failed_load_leaves_nothing_behind(registry: Registry) -> None:
    """No memory, no thread, no open file; the champion answers."""
    champion = Champion(device="cpu", threads=1)
    live = champion.swap(registry.get("m", "1"), POLICY)
    version = registry.get("m", "3")
    with pytest.raises(InvalidError):
        champion.swap(version, POLICY)
    standing, before = _standing(), _resident_mib()
    for _ in range(6):
        with pytest.raises(InvalidError, match="ONNX Runtime does not load it"):
            champion.swap(version, POLICY)
    assert _standing() == standing
    assert _resident_mib() - before < 60
    assert np.allclose(live.model.run({"x": rows(1)})["p"], rows(1)[:, :3])
    champion.close()


def test_who_waits_for_a_person_keeps_no_version(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output of a run is the session's memory, all of which it keeps: none is left once its batch is done."""
    given: list[weakref.ref[np.ndarray]] = []
    run = Model.run

    def noted(model: Model, feeds: Any, slab: Slab | None = None) -> dict[str, np.ndarray]:
        found = run(model, feeds, slab)
        given.extend(weakref.ref(array) for array in found.values())
        return found

    config = settings(config)
    facts = msgspec.structs.replace(JUDGED, on_deferral="wait")
    install(config.data_folder, "m", "1", timed().SerializeToString(), facts)
    promote(config, "m", "1")
    with running(config) as gateway, grpc.insecure_channel(gateway.address) as channel:
        stand = Stand(gateway, channel)
        outputs(stand.ask("m", rows(1)))
        monkeypatch.setattr(Model, "run", noted)
        # The first is new to the gateway, the second one like it.
        calls = [stand.ask("m", rows(count, sure=0.4)) for count in (2, 2)]
        parked = gateway.metrics.parked.labels("m")
        wait_until(lambda: parked._value.get() == 4)
        wait_until(lambda: [found() for found in given] == [None] * len(given))
        assert given
        assert not [call for call in calls if call.done()]
        for call in calls:
            call.cancel()
