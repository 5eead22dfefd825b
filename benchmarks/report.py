"""The result of a run: JSON for programs, and the table in docs/operating/performance.md between its markers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring import Figure
from benchmarks.server import BUILD
from benchmarks.targets import TARGETS, Verdict

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operating" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
JSON = BUILD / "result.json"


@dataclass(frozen=True, slots=True)
class Result:
    command: str
    date: str
    rounds: int
    machine: Mapping[str, str]
    figures: list[Figure]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for target in TARGETS if (verdict := target.verdict(self.figures))]


def write_json(result: Result) -> Path:
    JSON.parent.mkdir(parents=True, exist_ok=True)
    JSON.write_text(json.dumps(asdict(result), ensure_ascii=False, indent=1) + "\n")
    return JSON


def write_page(result: Result) -> Path:
    """The prose around the markers stays."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + "\n".join([BEGIN, *markdown(result), END]) + after)
    return PAGE


def markdown(result: Result) -> list[str]:
    return [*_machine(result), *_targets(result.verdicts), *_figures(result.figures)]


def _machine(result: Result) -> Iterator[str]:
    yield f"\n`{result.command}`, {result.date}; median (least – greatest) of {result.rounds} rounds.\n"
    yield from (f"- {name}: {value}" for name, value in result.machine.items())


def _targets(verdicts: list[Verdict]) -> Iterator[str]:
    yield from ("\n### Targets\n", "| what | wanted | measured | met |", "| --- | --- | --- | --- |")
    for verdict in verdicts:
        yield f"| {verdict.target.says} | {verdict.wanted} | {verdict.shown} | {'yes' if verdict.met else '**no**'} |"


def _figures(figures: list[Figure]) -> Iterator[str]:
    group = ""
    for figure in figures:
        of, _, name = figure.name.partition("/")
        if of != group:
            group = of
            yield from (f"\n### {group.capitalize()}\n", "| figure | median (range) |", "| --- | --- |")
        yield f"| {name.replace('/', ' · ')} | {figure.shown} |"
    yield ""
