"""A work-pool type of our own: runs async flows inside the worker's process.

The UI, schedules, automations, retry and cancel stay Prefect's own; only where a run's code runs
is ours. See docs/decisions/2026-11-24-warm-worker.md for what it saves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import httpx
import psutil
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import PrefectSignal
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import AwaitingRetry, Cancelled, Crashed

from clickpost import causes
from clickpost.settings import Settings
from deployments._prefect_internals import (
    AsyncClientContext,
    AsyncFlowRunEngine,
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
    SyncClientContext,
    get_events_subscriber,
    keep_to_one_thread,
    mark_flow_run_suspension_requested,
    remember_result_storage,
)
from tasks import _wiring

TYPE = "clickpost-warm"
_WAKING = ("Scheduled", "AwaitingRetry", "Resuming", "Late", "Cancelling", "Suspended")
#: Seconds for which a worker that stops waits for its runs; most sends take less.
FINISHING = 5.0
#: Seconds after which a run that was claimed, and whose claimer never wrote where it runs, is lost.
CLAIMING = 60.0
#: Seconds between looks for lost runs.
LOOKING = 30.0
_PAGE = 200
_GOING = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


class Result(BaseWorkerResult):
    """What the base class wants to know of a run's infrastructure."""


class Engine(AsyncFlowRunEngine[Any, Any]):
    """Runs one flow; tells a cancel and a hand-back from a crash."""

    worker: WarmWorker

    async def begin_run(self) -> State[Any]:
        """Begin the run; one that has its flow's name already is not named once more."""
        if self.flow_run is not None and self.flow_run.name.startswith(f"{self.flow.name} "):
            self._flow_run_name_set = True
        return await super().begin_run()

    async def handle_crash(self, exc: BaseException) -> None:
        """Report what was asked for: Cancelled, AwaitingRetry; else Crashed."""
        assert self.flow_run is not None
        if self.flow_run.id in self.worker.cancelled:
            await self.handle_cancellation(exc)
            return
        if not self.worker.hands_back:
            await super().handle_crash(exc)
            return
        with anyio.CancelScope(shield=True):
            await self.set_state(AwaitingRetry(message="handed back: the worker stops"), force=True)
            self._raised = exc  # type: ignore[assignment]  # as the base class does


class WarmWorker(BaseWorker[BaseJobConfiguration, BaseVariables, Result]):
    """Runs flows as coroutines of one process."""

    type = TYPE
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Runs ClickPost's flows inside a warm worker process."
    _documentation_url = "https://docs.prefect.io/v3/concepts/workers"
    _logo_url = (
        "https://cdn.sanity.io/images/3ugk85nk/production/"
        "356e6766a91baf20e1d08bbe16e8b5aaef4d8643-48x48.png"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cancelled: set[UUID] = set()
        self.stopping = False
        self.hands_back = False
        self._policies = Settings().policies
        self._flows: dict[UUID, Flow[Any, Any]] = {}
        self._scopes: dict[UUID, anyio.CancelScope] = {}
        self._woken = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def place(self) -> str:
        """Where this worker's runs are: host, name and process id."""
        return f"{socket.gethostname()}/{self.name}:{os.getpid()}"

    async def setup(self) -> None:
        """Share one client among all runs, take up what a former self left, listen for events."""
        keep_to_one_thread()
        remember_result_storage()
        await self._exit_stack.enter_async_context(AsyncClientContext.get_or_create())
        self._exit_stack.enter_context(SyncClientContext.get_or_create())
        await super().setup()
        await self._take_up()
        for loop in (self._listen(), self._poll(), self._look_after()):
            task = asyncio.create_task(loop)
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def teardown(self, *exc_info: Any) -> None:
        """Take nothing new, let end what ends soon, hand back the rest, then stop."""
        self.stopping = True
        for task in self._background:
            task.cancel()
        with anyio.move_on_after(FINISHING):
            while self._scopes:
                await anyio.sleep(0.05)
        self.hands_back = True
        for scope in list(self._scopes.values()):
            scope.cancel()
        with anyio.move_on_after(15):
            while self._scopes:
                await anyio.sleep(0.05)
        await super().teardown(*exc_info)

    async def run(
        self, flow_run: FlowRun, configuration: BaseJobConfiguration, task_status: Any = None
    ) -> Result:
        """Run one flow run here; the base class asks for this way in."""
        if task_status is not None:
            task_status.started(self.place)
        await self._executed(flow_run)
        return Result(identifier=self.place, status_code=0)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Ask for work; a server that is away, however long, is asked again."""
        try:
            return await super().get_and_submit_flow_runs()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            self._away(error)
            return []

    async def _sync_and_initialize(self) -> None:
        """Give a sign of life, and learn of the pool; the same as above where nobody listens."""
        try:
            await super()._sync_and_initialize()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            self._away(error)

    def _away(self, error: httpx.TransportError | httpx.HTTPStatusError) -> None:
        """Go on where the server is away, for else the base class ends the worker after a while.

        What it refuses (a status below 500) is an error of ours, and is raised.
        """
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
            raise error
        self._logger.warning("Prefect is away (%s); asking again", type(error).__name__)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Claim a run and run it here, without resolving a job template for each."""
        try:
            if self.stopping or not await self._propose_pending_state(flow_run):
                return
            await self.client.update_flow_run(flow_run.id, infrastructure_pid=self.place)
            await self._executed(flow_run)
        except Exception as error:
            self._logger.exception("could not run %s", flow_run.id)
            with contextlib.suppress(Exception):
                message = f"the worker could not run it: {type(error).__name__}"
                await self._propose_crashed_state(flow_run, message)
        finally:
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)
            if self._cancelling_observer is not None:
                self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)
            self._woken.set()

    async def _executed(self, flow_run: FlowRun) -> None:
        flow = await self._flow_of(flow_run)
        engine = Engine(flow=flow, parameters=flow_run.parameters, flow_run=flow_run)
        engine.worker = self
        with causes.by(str(flow_run.id)), anyio.CancelScope() as scope:
            self._scopes[flow_run.id] = scope
            try:
                # An error of the flow's own, or its pause, is in its state already.
                with (
                    contextlib.suppress(Exception, PrefectSignal),
                    _wiring.one_version(self._policies),
                ):
                    async with engine.start():
                        while engine.is_running():
                            async with engine.run_context():
                                await engine.call_flow_fn()  # type: ignore[unused-coroutine]
            finally:
                self._scopes.pop(flow_run.id, None)
                self.cancelled.discard(flow_run.id)

    async def _flow_of(self, flow_run: FlowRun) -> Flow[Any, Any]:
        """Return the flow of the run's deployment, loaded once."""
        if flow_run.deployment_id is None:
            raise ValueError("a run without a deployment cannot be run by a worker")
        if flow_run.deployment_id not in self._flows:
            deployment = await self.client.read_deployment(flow_run.deployment_id)
            entrypoint = str(deployment.entrypoint)
            loaded: Flow[Any, Any] = await asyncio.to_thread(load_flow_from_entrypoint, entrypoint)
            self._flows[flow_run.deployment_id] = loaded
        return self._flows[flow_run.deployment_id]

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        """Cancel a run of ours by cancelling its coroutine; others are not ours to touch."""
        if scope := self._scopes.get(flow_run_id):
            self.cancelled.add(flow_run_id)
            scope.cancel()
            return
        await super()._cancel_run(flow_run_id)

    async def _listen(self) -> None:
        """Wake the poll when something is there to do; on a lost line, listen anew."""
        names = [f"prefect.flow-run.{word}" for word in _WAKING]
        filter_ = EventFilter(event=EventNameFilter(name=names))
        while True:
            try:
                async with get_events_subscriber(filter=filter_) as events:
                    await self._take_up()  # What ended while the server was away.
                    self._woken.set()
                    async for event in events:
                        await self._heard(event)
                        self._woken.set()
            except Exception as error:
                self._logger.debug("events: %s; listening anew", type(error).__name__)
                await asyncio.sleep(1)

    async def _heard(self, event: Any) -> None:
        """Cancel or suspend a run of ours when its event says so."""
        run_id = UUID(str(event.resource["prefect.resource.id"]).removeprefix("prefect.flow-run."))
        if run_id not in self._scopes:
            return
        if event.event.endswith("Cancelling"):
            await self._cancel_run(run_id)
        elif event.event.endswith("Suspended"):
            run = await self.client.read_flow_run(run_id)
            if run.state is not None and run.state.is_paused():
                mark_flow_run_suspension_requested(run_id, run.state)

    async def _poll(self) -> None:
        """Ask for work when woken, unless we are full; the base class' own poll is the fallback."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._limiter is not None and self._limiter.available_tokens <= 0:
                continue
            try:
                await self.get_and_submit_flow_runs()
            except Exception as error:
                self._logger.debug("poll: %s", type(error).__name__)
                await asyncio.sleep(0.5)

    async def _look_after(self) -> None:
        """Look for lost runs now and then: they hold places of their queue's limit."""
        while True:
            await asyncio.sleep(LOOKING)
            try:
                await self._take_up()
            except Exception as error:
                self._logger.debug("lost runs: %s; looking again", type(error).__name__)

    async def _take_up(self) -> None:
        """Mark the runs of dead workers Crashed, and let them run again.

        And runs of ours that ended here while Prefect was away, and are still going there.
        """
        if self._work_pool is None:
            return
        places = await self._places()
        for run in await self._going():
            if run.state is None or not self._is_lost(run, places):
                continue
            now = await self.client.read_flow_run(run.id)
            if now.state is None or now.state.id != run.state.id:
                continue  # Somebody else was quicker.
            if run.state.is_cancelling():
                off: State[Any] = Cancelled(message="its worker was killed while it was cancelled")
                await self.client.set_flow_run_state(run.id, off, force=True)
            else:
                self._logger.warning("run %s lost its worker; it runs again", run.id)
                crashed: State[Any] = Crashed(message="its worker was killed")
                await self.client.set_flow_run_state(run.id, crashed, force=True)
                again: State[Any] = AwaitingRetry(
                    message="picked up again after its worker was killed"
                )
                await self.client.set_flow_run_state(run.id, again, force=True)

    async def _going(self) -> list[FlowRun]:
        """Return all runs of the pool that are going, as Prefect says."""
        runs: list[FlowRun] = []
        while True:
            page = await self.client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate(
                    {"state": {"type": {"any_": [one.value for one in _GOING]}}}
                ),
                work_pool_filter=WorkPoolFilter.model_validate(
                    {"name": {"any_": [self._work_pool_name]}}
                ),
                limit=_PAGE,
                offset=len(runs),
            )
            runs += page
            if len(page) < _PAGE:
                return runs

    async def _places(self) -> dict[str, str]:
        """Return whether the pool's workers are ONLINE or OFFLINE, by their names."""
        workers = await self.client.read_workers_for_work_pool(self._work_pool_name)
        return {one.name: one.status.value for one in workers if one.status}

    def _is_lost(self, run: FlowRun, workers: Mapping[str, str]) -> bool:
        """Say whether a run that is going, as Prefect says, is going nowhere."""
        if run.id in self._scopes or run.id in self._submitting_flow_run_ids:
            return False
        place = run.infrastructure_pid
        if place == self.place:
            return True
        if place is None:
            return run.state is not None and _age(run.state.timestamp) > CLAIMING
        return is_dead(place, workers)


def is_dead(place: str, workers: Mapping[str, str]) -> bool:
    """Say whether `place` names a process that is no more (or is us, reborn).

    Of another machine's processes only Prefect knows: their worker gives no sign of life.
    """
    host, _, rest = place.partition("/")
    name, _, pid = rest.rpartition(":")
    if not pid.isdigit():
        return False
    if host != socket.gethostname():
        return workers.get(name) == "OFFLINE"
    if int(pid) == os.getpid():
        return True
    try:
        return "deployments.worker" not in " ".join(psutil.Process(int(pid)).cmdline())
    except psutil.Error:
        return True


def _age(moment: datetime) -> float:
    """Return the seconds since `moment`."""
    return (datetime.now(UTC) - moment).total_seconds()
