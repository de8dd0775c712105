"""The executor of MCP's tools, over the services of this replica."""

import logging
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.to_thread
from aiohttp import web
from attrs import define, field

from pyexec.codec import to_json
from pyexec.domain.event_stream import Item, LifecycleItem, OutputItem, Position
from pyexec.domain.execution import Execution, Status
from pyexec.domain.ids import is_execution_id
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.result import result_of
from pyexec.domain.spec import EvalRequest, Metadata
from pyexec.errors import ExecutorError, InvalidRequest, KeyReused, UnknownExecution, quote
from pyexec.mcp.executor import DISPLAY_VALUES_MAX, Document, OnProgress, tool_error
from pyexec.mcp.progress import ProgressText
from pyexec.mcp.sessions import Sessions
from pyexec.services.active_runs import Run
from pyexec.web.context import Context, get_context, public, read_caller, read_tenant
from pyexec.web.handlers.submissions import archive_upload, eval_upload
from pyexec.web.mcp.loopback import LoopbackHttp
from pyexec.web.request_parser import parse_request
from pyexec.web.schemas import Listing

logger = logging.getLogger(__name__)

CONVERT_INLINE_BYTES_MAX = 16 * 1024
CANCELLATIONS_MAX = 32
CANCELLATION_SECONDS = 10.0


@define
class WaitingCancellations:
    """The cancellations that wait on this replica: at most `CANCELLATIONS_MAX`, each for `CANCELLATION_SECONDS`."""

    _scopes: list[anyio.CancelScope] = field(factory=list)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Cancel the body after `CANCELLATION_SECONDS`. If too many cancellations wait, cancel the oldest."""
        with anyio.move_on_after(CANCELLATION_SECONDS) as scope:
            self._scopes.append(scope)
            if len(self._scopes) > CANCELLATIONS_MAX:
                self._scopes.pop(0).cancel()
            try:
                yield
            finally:
                if scope in self._scopes:
                    self._scopes.remove(scope)


class ServiceExecutor:
    """Runs programs for the caller of one HTTP request."""

    def __init__(self, request: web.Request, cancellations: WaitingCancellations) -> None:
        self._request = request
        self._cancellations = cancellations
        self._context: Context = get_context(request)
        self._caller = read_caller(request)
        self._tenant = read_tenant(request)

    @property
    def sessions(self) -> Sessions:
        return Sessions(LoopbackHttp(self._request))

    async def run(self, request: Document, call_id: str | None, on_progress: OnProgress | None) -> Document:
        with _translate_errors():
            body = parse_request(request, EvalRequest, what="arguments")
            started = await self._start(body, call_id)
            execution_id = started.id if isinstance(started, Run) else started
            try:
                if on_progress is None:
                    return await self._result_of(started)
                return await self._follow(execution_id, on_progress)
            except anyio.get_cancelled_exc_class():
                if not self._context.submissions.closed:
                    with anyio.CancelScope(shield=True):
                        await self._context.executions.request_kill(execution_id, self._caller)
                raise

    async def _start(self, body: EvalRequest, call_id: str | None) -> Run | str:
        """Start the run. The call's id is its idempotency key, by which any replica finds it.

        The identity is unique, because no call may get the execution of another one."""
        identity = f"mcp {uuid.uuid4().hex}"
        try:
            upload = eval_upload(body, key=call_id, identity=identity, tenant=self._tenant)
            return await self._context.submissions.run(upload)
        except KeyReused:  # the client has reused a request id
            upload = eval_upload(body, key=None, identity=identity, tenant=self._tenant)
            return await self._context.submissions.run(upload)

    async def _result_of(self, started: Run | str) -> Document:
        if isinstance(started, Run):
            await started.inactive.wait()
            if started.has_ended:
                return await self._document(started.execution, started.output_log)
            started = started.id  # another replica has adopted it
        execution = await self._context.executions.wait_until_ended(started, self._caller)
        return await self._with_output(execution)

    async def _follow(self, execution_id: str, on_progress: OnProgress) -> Document:
        """Call `on_progress` with the phases and the output, and return the result."""
        async with self._items(execution_id) as batches:
            progress = ProgressText()
            async for batch in batches:
                if text := "".join(_text_of(item, progress) for item in batch):
                    await on_progress(text)
        return await self._with_output(
            await self._context.executions.wait_until_ended(execution_id, self._caller)
        )

    @asynccontextmanager
    async def _items(self, execution_id: str) -> AsyncIterator[AsyncIterator[Sequence[Item]]]:
        items = self._context.executions.known_items(execution_id, Position(), self._caller)
        try:
            yield items
        finally:
            await items.aclose()

    async def cancel(self, call_id: str) -> None:
        with _translate_errors():
            executions = self._context.executions
            execution_id = await executions.find_by_key(call_id, self._tenant)
            if execution_id is None:
                # Another replica may still be appending the execution.
                with self._cancellations.wait():
                    execution_id = await executions.wait_for_key(call_id, self._tenant)
            if execution_id is None:
                logger.info("no execution found for a cancelled tool call")
                return
            with anyio.CancelScope(shield=True):
                await executions.request_kill(execution_id, self._caller)

    async def submit(self, metadata: Document, files: Sequence[Mapping[str, str]]) -> str:
        with _translate_errors():
            sources = parse_request({"files": list(files)}, EvalRequest, what="arguments").files
            options = parse_request(metadata, Metadata, what="arguments")
            return await self._context.submissions.submit(
                archive_upload(options, sources, identity="mcp", tenant=self._tenant)
            )

    async def get(self, execution_id: str, wait_seconds: float) -> Document:
        with _translate_errors():
            execution = await self._context.executions.wait(
                _checked(execution_id), self._caller, wait_seconds
            )
            return await self._with_output(execution)

    async def kill(self, execution_id: str) -> str:
        with _translate_errors():
            execution = await self._context.executions.kill(_checked(execution_id), self._caller)
            return str(execution.status)

    async def page(self, status: str | None, limit: int, cursor: str | None) -> Document:
        with _translate_errors():
            wanted = None if status is None else Status(status)
            found, following = await self._context.executions.listing.page(
                wanted, limit, cursor, self._caller
            )
            listed = tuple(public(self._request, summary) for summary in found)
            return {"next_cursor": None, **to_json(Listing(executions=listed, next_cursor=following))}

    async def read_file(self, execution_id: str, path: str, bytes_max: int) -> bytes:
        with _translate_errors():
            download = await self._context.downloads.one(_checked(execution_id), path, self._caller)
            if download.size > bytes_max:
                raise InvalidRequest(
                    f"{quote(path)} has {download.size} bytes; at most {bytes_max} can be returned here. Get it with "
                    f"GET /api/v1/executions/{execution_id}/files/PATH",
                    field="path",
                )
            return b"".join([chunk async for chunk in download.chunks])

    async def _with_output(self, execution: Execution) -> Document:
        async with self._context.executions.output(execution, self._caller) as output_log:
            return await self._document(execution, output_log)

    async def _document(self, execution: Execution, output_log: OutputLog) -> Document:
        """Convert a result, without JSON values that are too large for MCP. A thread converts large displays."""

        def convert() -> Document:
            result = public(self._request, result_of(execution, output_log, DISPLAY_VALUES_MAX))
            document: Document = to_json(result)
            return document

        if output_log.size_of(Stream.DISPLAY) > CONVERT_INLINE_BYTES_MAX:
            return await anyio.to_thread.run_sync(convert)
        return convert()


def _text_of(item: Item, progress: ProgressText) -> str:
    match item:
        case LifecycleItem():
            return progress.phase(item.event.name)
        case OutputItem():
            return progress.output(item.stream, item.data)
    return ""


def _checked(execution_id: str) -> str:
    if not is_execution_id(execution_id):
        raise UnknownExecution(f"{quote(execution_id)} is not an execution id")
    return execution_id


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn the errors of the services into errors that name the tool's arguments."""
    try:
        yield
    except ExecutorError as error:
        if error.code == ExecutorError.code:
            raise  # the server's own fault, which the SDK logs
        field = error.field if isinstance(error, InvalidRequest) else None
        raise tool_error(str(error), code=error.code, field=field) from error
