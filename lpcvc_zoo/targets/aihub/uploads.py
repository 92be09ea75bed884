"""Models and datasets at the service: sent once, found again by content, sent again once they expired."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lpcvc_zoo.errors import TargetError
from lpcvc_zoo.targets.aihub.failures import ServiceUnavailableError
from lpcvc_zoo.targets.aihub.samples import Columns
from lpcvc_zoo.targets.aihub.service import Service
from lpcvc_zoo.targets.aihub.source import Source
from lpcvc_zoo.targets.aihub.store import Store, Upload

DAY_S = 86_400
KEPT = 32  # characters of a hash in names: the service's names need not be unique, ours are


def name_of(*parts: str) -> str:
    """A name for something at the service; without dots, which the client takes for file suffixes."""
    return "-".join(("lpcvc-zoo", *parts)).replace(".", "_")


class Uploads:
    """What was sent to a service, remembered in a store."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store

    def model(self, source: Source) -> Any:
        """The client's ``Model`` of an ONNX file."""
        client, name = self._service.client, name_of("model", source.content[:KEPT])

        def send() -> Any:
            with source.packed() as path:
                return self._service.call(f"upload {source.path.name}", client.upload_model, str(path), name)

        return self._once(
            "models", source.content, name, client.get_model, send, lambda model: model.model_id
        )

    def dataset(self, columns: Columns, key: str) -> Any:
        """The client's ``Dataset`` of these samples; ``key``: their ``dataset_key``."""
        client, name = self._service.client, name_of("data", key[:KEPT])

        def send() -> Any:
            return self._service.call("upload a dataset", client.upload_dataset, columns, name)

        return self._once("datasets", key, name, client.get_dataset, send, lambda data: data.dataset_id)

    def _once(
        self,
        kind: str,
        key: str,
        name: str,
        get: Callable[[str], Any],
        send: Callable[[], Any],
        id_of: Callable[[Any], str],
    ) -> Any:
        with self._store.held(kind, key):
            known = self._store.get(kind, key, Upload)
            if known is not None:
                try:
                    found = self._service.call(f"look up {known.id}", get, known.id)
                    if found.name == name and not _expired(found):
                        return found
                except ServiceUnavailableError:
                    raise
                except TargetError:
                    pass  # gone, or another account's: send it again
            for failures in range(1, self._service.patience.tries + 1):
                sent = id_of(send())
                # The answer to an upload is not proof: look at what is really there under that id.
                found = self._service.call(f"look up {sent}", get, sent)
                if found.name == name:
                    self._store.put(kind, key, Upload(id=sent))
                    return found
                self._service.patience.pause(failures)
        raise TargetError(f"Could not upload {name}: {self._service.api_url} answers with the ids of others.")


def _expired(found: Any) -> bool:
    """Whether a dataset will be gone within a day: a job in a queue might not find it. Models stay."""
    expires = getattr(found, "expiration_time", None)
    return expires is not None and expires.timestamp() < time.time() + DAY_S
