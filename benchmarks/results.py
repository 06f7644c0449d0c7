"""Results of a case: our number, the peer's number in the same run, and the target."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One line of the table. Numbers are medians of several runs, in `unit`."""

    case: str
    ours: float
    unit: str
    target: float
    """The target: a ratio to the peer, or without a peer a number in `unit`."""
    peer: str | None = None
    peers: float | None = None
    more_is_better: bool = False
    runs: int = 1

    @classmethod
    def of(
        cls,
        case: str,
        ours: Sequence[float],
        unit: str,
        target: float,
        *,
        peer: str | None = None,
        peers: Sequence[float] = (),
        more_is_better: bool = False,
    ) -> "Result":
        """Return the result of several runs: their medians."""
        compared_with = statistics.median(peers) if peers else None
        return cls(case, statistics.median(ours), unit, target, peer, compared_with, more_is_better, len(ours))

    @property
    def ratio(self) -> float | None:
        """Our number divided by the peer's; None without a peer."""
        return self.ours / self.peers if self.peers else None

    @property
    def kept(self) -> bool:
        """Whether the target is met."""
        found = self.ours if self.ratio is None else self.ratio
        return found >= self.target if self.more_is_better else found <= self.target


def table(results: Iterable[Result]) -> Table:
    shown = Table("case", "ours", "peer", "", "ratio", "target", "")
    for result in results:
        sign = "≥" if result.more_is_better else "≤"
        held_to = f"{result.target:g} x peer" if result.peer else f"{result.target:g} {result.unit}"
        shown.add_row(
            result.case,
            f"{result.ours:,.2f} {result.unit}",
            result.peer or "",
            "" if result.peers is None else f"{result.peers:,.2f} {result.unit}",
            "" if result.ratio is None else f"{result.ratio:.3f}",
            f"{sign} {held_to}",
            "[green]kept[/]" if result.kept else "[red]missed[/]",
        )
    return shown


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write the results to a file, to compare runs."""
    lines = [{**asdict(result), "ratio": result.ratio, "kept": result.kept} for result in results]
    path.write_text(json.dumps(lines, indent=2) + "\n")
