"""How far a push is, reckoned from what the engine says of each layer."""

from dataclasses import dataclass
from typing import Any

from workers.transports.transport import PushProgress

_ENDED = ("Pushed", "Layer already exists", "Mounted from", "Skipped foreign layer", "Already exists")


@dataclass
class _Layer:
    done: int = 0
    total: int = 0
    ended: bool = False


class PushTally:
    """Adds up the events of one push stream. Bytes are counted before compression."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}

    def read(self, event: dict[str, Any]) -> None:
        """Take the next event; one that is about no layer changes nothing."""
        layer_id, status = event.get("id"), str(event.get("status", ""))
        if not layer_id:
            return
        layer = self._layers.setdefault(str(layer_id), _Layer())
        if status.startswith(_ENDED):
            layer.ended = True
            layer.done = layer.total
        elif status.startswith("Retrying"):
            # The engine sends the layer again from its beginning.
            layer.ended, layer.done = False, 0
        elif status == "Pushing":
            detail = event.get("progressDetail") or {}
            layer.total = max(layer.total, int(detail.get("total") or 0))
            # Padding of the archive is counted by the engine, but is no part of the size that it names.
            layer.done = min(int(detail.get("current") or 0), layer.total)

    def progress(self) -> PushProgress:
        """How far the push is."""
        layers = self._layers.values()
        return PushProgress(
            done_bytes=sum(layer.done for layer in layers),
            total_bytes=sum(layer.total for layer in layers),
            layers_done=sum(layer.ended for layer in layers),
            layers_total=len(layers),
        )
