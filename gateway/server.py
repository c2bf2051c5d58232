"""The gateway: everything of this folder put together, started, drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from importlib import metadata
from typing import Final

import structlog
from google.protobuf import descriptor_pb2

from demur import kserve
from demur.v1 import model_pb2, prediction_pb2
from fallback import presence
from fallback.arrivals import Arrivals
from fallback.config import Config, FallbackSettings
from fallback.documents import Documents
from fallback.ending import end_all
from fallback.errors import UnavailableError
from fallback.identity import Credentials, check_listen
from fallback.queue import Queue
from fallback.secret import secret
from gateway import admission, memory, metrics, model_service, service, streamed, transports
from gateway.amendments import Amending
from gateway.aside import Aside
from gateway.backlog import Backlog
from gateway.champion import Champion
from gateway.champions import Champions
from gateway.clerk import Clerk
from gateway.config import GatewaySettings
from gateway.cores import cores
from gateway.deferring import Deferring
from gateway.extensions import INSTEAD, Extensions
from gateway.hold_off import HoldOff
from gateway.kserve import InferenceService
from gateway.metrics import Metrics, MetricsPage
from gateway.model import probe
from gateway.model_service import ModelService
from gateway.pipeline import Pipeline
from gateway.reader import Reader, unburdened
from gateway.registry import Registry
from gateway.remembered import Remembered
from gateway.service import PredictionService
from gateway.shipping import Recorders, Shipping
from gateway.slow import SlowLoop
from gateway.standing import files_of
from gateway.streamed import Streams
from gateway.timer import Timer
from gateway.transport import Routes, Transport
from gateway.turns import Shares
from gateway.unparked import Unparked
from gateway.watch import Watch

PROCESS: Final = "serve"
MODELS_FOLDER: Final = "models"
COPIES_FOLDER: Final = "gateway"
SPOOLS_FOLDER: Final = "spools"
SWITCH_SECONDS: Final = 0.0002
# What waits for a run of a model.
# Threads that run models.
_RUNS: Final = ("batcher-", "transport")
_QUEUED: Final = (f"/{service.SERVICE}/Predict", f"/{kserve.SERVICE}/ModelInfer")
_READERS: Final = 2
_READING_MAX: Final = 1024
# What the parts may take to end after the grace of the calls.
_END_SECONDS: Final = 5.0
_START_SECONDS_MAX: Final = 300.0

log = structlog.get_logger(__name__)


class Gateway:
    """One gateway. `start` returns once it answers; `drain` lets what is under way end, and stops."""

    def __init__(self, config: Config, *, clerk: bool = False) -> None:
        self.settings = config.table("gateway", GatewaySettings)
        self._config = config
        self._aside = Aside()
        self._clerk = Clerk(config, self._aside) if clerk else None
        self._credentials = Credentials.load(config.table("fallback", FallbackSettings).credentials_file)
        self._secret = secret(config, "audit").encode()
        self._following: list[asyncio.Task[None]] = []
        self._page: MetricsPage | None = None
        self._transport: Transport | None = None
        self._provider = ""
        self._slow = SlowLoop()
        self._timer = Timer()
        self._shares = Shares(cores())
        self._reader = Reader(threads=_READERS, waiting_max=_READING_MAX)
        self._remembered = Remembered(self.settings.keys_max)
        self._recorders = Recorders(
            config.data_folder / SPOOLS_FOLDER,
            bytes_max=self.settings.spool_bytes_max,
            keys_max=self.settings.keys_max,
        )
        self.metrics = Metrics()
        self.queue: Queue
        self.arrivals: Arrivals
        self.shipping: Shipping
        self.documents: Documents
        self.watch: Watch
        self.champions = Champions(
            self._pipeline, device=self.settings.device, threads=self.settings.threads, metrics=self.metrics
        )
        self.registry = Registry(config.data_folder / MODELS_FOLDER)

    @property
    def address(self) -> str:
        """Where it answers gRPC, host:port."""
        listen = self.settings.grpc_listen
        if self._transport is None or listen.startswith("unix"):
            return listen
        return f"{listen.rpartition(':')[0]}:{self._transport.port}"

    @property
    def metrics_address(self) -> str:
        """Where its Prometheus page is, host:port; empty where there is none."""
        return "" if self._page is None else self._page.address

    def start(self) -> None:
        """Load the champions and listen. Raises ConfigError where the configuration or the machine does not fit."""
        check_listen("gateway.grpc_listen", self.settings.grpc_listen, self._credentials)
        if self.settings.metrics_listen:
            check_listen("gateway.metrics_listen", self.settings.metrics_listen, self._credentials, http=True)
        self._provider = probe(self.settings.device)
        self._slow.start()
        self._timer.start()
        try:
            self._slow.run(self._open(), timeout_seconds=_START_SECONDS_MAX)
            self._transport = self._make_transport()
            self._transport.start()
            if self.settings.metrics_listen:
                self._page = metrics.serve(self.metrics, self.settings.metrics_listen)
        except BaseException:
            self.drain(0.0)
            raise
        self.metrics.set_build(version=metadata.version("demur"), device=self._provider)
        self._slow.run(self._follow())
        self._inference.ready = True
        self._transport.set_ready(ready=True)
        log.info("serving", grpc=self.address, metrics=self.metrics_address, provider=self.provider)

    @property
    def provider(self) -> str:
        """What models run on."""
        return self.champions.provider or self._provider

    def drain(self, grace_seconds: float | None = None) -> None:
        """Take no new calls, let those under way end for up to `grace_seconds` (None: as configured), and stop."""
        grace = self.settings.drain_seconds if grace_seconds is None else grace_seconds
        log.info("draining", seconds=grace)
        if self._transport is not None:
            self._inference.ready = False
            self._predictions.drain()
            self._transport.stop(grace)
        self._reader.close()
        self.champions.close(min(grace, _END_SECONDS))
        self._timer.close()
        if hasattr(self, "_deferring"):
            self._deferring.close(min(grace, _END_SECONDS))
        self._slow.stop(min(grace, _END_SECONDS), last=self._close)
        if self._page is not None:
            self._page.close()
        log.info("stopped")

    async def _open(self) -> None:
        self.queue = Queue.connect(self._config)
        self.documents = Documents.connect(self._config)
        self.arrivals = Arrivals.connect(self._config)
        hold_off, unparked = HoldOff(), Unparked()
        self.shipping = Shipping(
            recorders=self._recorders,
            arrivals=self.arrivals,
            queue=self.queue,
            metrics=self.metrics,
            rejoin_seconds=self.settings.rejoin_seconds,
            hold_off=hold_off,
            unparked=unparked,
        )
        self.watch = Watch(
            documents=self.documents,
            registry=self.registry,
            champions=self.champions,
            folder=self._config.data_folder / COPIES_FOLDER,
            wait_seconds=self.settings.watch_seconds,
            metrics=self.metrics,
        )
        self._amending = Amending(
            queue=self.queue,
            documents=self.documents,
            champions=self.champions,
            nearest_max=self.settings.nearest_max,
        )
        self._deferring = Deferring(
            queue=self.queue,
            slow=self._slow,
            metrics=self.metrics,
            backlog=Backlog(rows_max=self.settings.parkings_max, bytes_max=self.settings.parkings_bytes_max),
            redis_away=self.settings.redis_away,
            hold_off=hold_off,
            unparked=unparked,
            clerk=self._clerk,
        )
        # A server that forgets is refused; one that is away is not waited for.
        with contextlib.suppress(UnavailableError):
            await self.queue.check()
        # Before anybody asks: who asked a gateway that died may ask again, and is known.
        await self.shipping.adopt()
        await self.watch.start()

    async def _follow(self) -> None:
        self._following = [
            asyncio.create_task(work) for work in (self.watch.run(), self.shipping.run(), self._amending.run())
        ]

    async def _close(self) -> None:
        await end_all(self._following)
        # What did not come to be opened is not there.
        for opened in ("shipping", "queue", "documents", "arrivals"):
            if hasattr(self, opened):
                await getattr(self, opened).close()

    def _pipeline(self, model: str, champion: Champion) -> Pipeline:
        return Pipeline(
            model,
            champion,
            deferring=self._deferring,
            reader=self._reader,
            remembered=self._remembered,
            recorder=self._recorders.of(model),
            timer=self._timer,
            shares=self._shares,
            metrics=self.metrics,
            secret=self._secret,
            queue_rows_max=self.settings.queue_rows_max,
            pixels_max=self.settings.image_pixels_max,
            answers_kept=self.settings.answers_kept,
        )

    def _make_transport(self) -> Transport:
        settings = self.settings
        self._predictions = PredictionService(
            champions=self.champions,
            queue=self.queue,
            credentials=self._credentials,
            metrics=self.metrics,
            message_bytes_max=settings.message_bytes_max,
            wait_seconds_max=settings.wait_seconds_max,
        )
        self._inference = InferenceService(
            champions=self.champions,
            queue=self.queue,
            slow=self._slow,
            credentials=self._credentials,
            message_bytes_max=settings.message_bytes_max,
            wait_seconds_max=settings.wait_seconds_max,
        )
        models = ModelService(
            registry=self.registry,
            documents=self.documents,
            watch=self.watch,
            limits=admission.Limits(
                artefact_bytes_max=settings.artefact_bytes_max,
                seconds=settings.admission_seconds,
                memory_bytes_max=settings.admission_memory_bytes_max,
            ),
            credentials=self._credentials,
        )
        extensions = Extensions(
            champions=self.champions, registry=self.registry, metrics=self.metrics, credentials=self._credentials
        )
        found = {**self._predictions.hot(), **self._inference.hot()}
        hot = {name: unburdened(handler, self._reader) for name, handler in found.items()}
        self.streams = Streams(
            hot[f"/{kserve.SERVICE}/ModelInfer"],
            ready=lambda: self._inference.ready,
            bytes_max=settings.requests_bytes_max,
        )
        return transports.make(
            settings.transport,
            Routes(
                hot=hot,
                slow={**self._predictions.slow(), **models.routes(), **extensions.slow(), **self.streams.slow()},
                reads=model_service.READS | {streamed.METHOD},
                writes=self._predictions.writes() | {streamed.METHOD},
                drained=self.champions.drained,
                refusals=dict.fromkeys(_QUEUED, self.champions.refusal),
                aside=self._aside,
                instead=INSTEAD,
            ),
            listen=settings.grpc_listen,
            slow_loop=self._slow.loop,
            message_bytes_max=settings.message_bytes_max,
            calls_max=settings.calls_max,
            requests_bytes_max=settings.requests_bytes_max,
            names=(service.SERVICE, model_service.SERVICE, kserve.SERVICE),
            files=_files(),
            connections=settings.connections,
        )


def serve(config: Config) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain it. Says in <data>/run/serve.json where it answers.

    Until it answers there is nothing to drain: either ends the process as if nothing here were listening to it.
    """
    # Whoever waits for the interpreter is in the path of a request; the default would have it wait for 5 ms.
    sys.setswitchinterval(SWITCH_SECONDS)
    memory.give_back_large()
    stopping = threading.Event()
    gateway = Gateway(config, clerk=config.table("gateway", GatewaySettings).clerk)
    gateway.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    memory.keep_what_is_there()
    addresses = {"grpc": gateway.address, "metrics": gateway.metrics_address}
    facts = {"device": gateway.settings.device, "provider": gateway.provider}
    presence.announce(
        config.data_folder,
        PROCESS,
        presence.Running(pid=os.getpid(), addresses=addresses, facts=facts),
    )
    stopping.wait()
    presence.withdraw(config.data_folder, PROCESS)
    gateway.drain()
    _leave_runs()


def _leave_runs() -> None:
    """End the process at once where a model's run has not ended: an interpreter that ends under one aborts."""
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(_RUNS)]
    if left:
        log.warning("runs did not end in time; leaving them", threads=left)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Return the descriptors of both contracts, which live in two pools."""
    return files_of(prediction_pb2.DESCRIPTOR, model_pb2.DESCRIPTOR, kserve.DESCRIPTOR)
