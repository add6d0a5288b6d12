"""MLflow's client over HTTP, with one short attempt for each request: whoever calls does the waiting.

MLflow itself tries seven times with pauses of up to two minutes, so that a call stands still for four minutes when the
server is away and for twenty when it accepts and never answers. What it reads for that (MLFLOW_HTTP_REQUEST_TIMEOUT and
MLFLOW_HTTP_REQUEST_MAX_RETRIES, at each request) belongs to the whole process, so these clients pass their own instead.
"""

from __future__ import annotations

import functools
import io
import json
import os
import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import TemporaryError
from .mlflow_errors import may_pass

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
UPLOAD_SECONDS = 120.0
LONGEST_RETRY_AFTER = 120.0


def prompt_client(uri: str) -> MlflowClient:
    """Return a client whose requests are tried once each.

    Raises:
        TemporaryError: the server says that it is not ready.
        mlflow.exceptions.MlflowException: it cannot be reached.
    """
    from mlflow import MlflowClient
    from mlflow.utils.credentials import get_default_host_creds

    # A server that accepts and never answers is found out soon; any answer but "not now" will do.
    _request(get_default_host_creds(uri), "/version", "GET", CONNECT_SECONDS)
    client = MlflowClient(tracking_uri=uri)
    # There is no public way to give a client a store of one's own.
    client._tracking_client = _tracking_client()(uri)
    return client


def watch_uploads(client: MlflowClient, gets_on: Callable[[], None]) -> None:
    """Have `gets_on` called whenever a part of a file was sent; a client that this module did not make does not."""
    if hasattr(client._tracking_client, "gets_on"):
        client._tracking_client.gets_on = gets_on


class _Watched(io.FileIO):
    """A file that says when it is read."""

    def __init__(self, path: str, gets_on: Callable[[], None]) -> None:
        super().__init__(path)
        self._gets_on = gets_on

    def read(self, size: int | None = -1, /) -> bytes:
        self._gets_on()
        return super().read(size)


def _request(host: Any, endpoint: str, method: str, read_seconds: float, **content: Any) -> Any:
    from mlflow.utils.rest_utils import http_request

    seconds = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or read_seconds)
    reply = http_request(
        host,
        endpoint,
        method,
        max_retries=0,
        timeout=(min(CONNECT_SECONDS, seconds), seconds),
        raise_on_status=False,
        respect_retry_after_header=False,
        **content,
    )
    if may_pass(reply.status_code):
        raise TemporaryError(
            f"{method} {endpoint}: {reply.status_code} {reply.reason}", _retry_after(reply.headers.get("Retry-After"))
        )
    return reply


def _retry_after(header: str | None) -> float | None:
    try:
        return None if header is None else min(LONGEST_RETRY_AFTER, max(0.0, float(header)))
    except ValueError:  # a date: the usual pause will do
        return None


@functools.cache
def _store() -> Any:
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.proto_json_utils import parse_dict
    from mlflow.utils.rest_utils import verify_rest_response

    class PromptStore(RestStore):  # type: ignore[misc]
        def _call_endpoint(
            self,
            api: Any,
            json_body: str | None = None,
            endpoint: str | None = None,
            retry_timeout_seconds: float | None = None,
            response_proto: Any = None,
        ) -> Any:
            info = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
            usual, method = info[api]
            place = endpoint or usual
            content = {"params" if method == "GET" else "json": None if json_body is None else json.loads(json_body)}
            reply = _request(self.get_host_creds(), place, method, READ_SECONDS, **content)
            answer = response_proto or api.Response()
            parse_dict(json.loads(verify_rest_response(reply, place).text), answer)
            return answer

    return PromptStore


@functools.cache
def _artifacts() -> Any:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.utils.rest_utils import verify_rest_response

    class PromptArtifacts(HttpArtifactRepository):  # type: ignore[misc]
        def __init__(self, uri: str, gets_on: Callable[[], None]) -> None:
            super().__init__(uri)
            self._gets_on = gets_on

        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            endpoint = posixpath.join("/", artifact_path or "", os.path.basename(local_file))
            headers = {"Content-Type": "application/octet-stream"}
            with _Watched(local_file, self._gets_on) as file:
                reply = _request(self._host_creds, endpoint, "PUT", UPLOAD_SECONDS, data=file, extra_headers=headers)
            verify_rest_response(reply, endpoint)

    return PromptArtifacts


@functools.cache
def _tracking_client() -> Any:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.tracking._tracking_service.client import TrackingServiceClient
    from mlflow.utils.credentials import get_default_host_creds

    class PromptTrackingClient(TrackingServiceClient):  # type: ignore[misc]
        gets_on: Callable[[], None] = staticmethod(lambda: None)

        @property
        def store(self) -> Any:
            return _store()(lambda: get_default_host_creds(self.tracking_uri))

        def _get_artifact_repo(self, resource_id: str, **kind: Any) -> Any:
            usual = super()._get_artifact_repo(resource_id, **kind)
            return (
                _artifacts()(usual.artifact_uri, self.gets_on) if isinstance(usual, HttpArtifactRepository) else usual
            )

    return PromptTrackingClient
