"""The corpus of wrong programs: `# E[code]` or `# W[code]` on the offending line."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from patternc.check import check_file
from patternc.codes import CODES, Code
from patternc.diagnostics import Diagnostic, PatternError, Severity
from patternc.render import render_text
from patternc.source import Source
from patternc.syntax.load import read_source
from patternc.syntax.parse import parse

HERE = Path(__file__).parent
CORPUS = sorted(HERE.glob("*.pat"))
EXPECTED = re.compile(r"([EW])\[([a-z0-9-]+)\]")


def findings(source: Source) -> tuple[Diagnostic, ...]:
    try:
        return check_file(parse(source))
    except PatternError as error:
        return error.diagnostics


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_exactly_the_marked_lines_are_reported(path: Path) -> None:
    source = read_source(path)
    wanted = Counter(
        (line, letter, code)
        for line, text in enumerate(source.text.splitlines(), start=1)
        for letter, code in EXPECTED.findall(text.partition("#")[2])
    )
    assert wanted, "the file marks no error"
    given = Counter(
        (
            item.span.line,
            "E" if item.severity is Severity.ERROR else "W",
            item.code,
        )
        for item in findings(source)
    )
    assert given == wanted


def test_findings_are_in_the_order_of_the_file() -> None:
    for path in CORPUS:
        places = [item.span.start for item in findings(read_source(path))]
        assert places == sorted(places)


SNAPSHOTS = [
    code
    for code in CODES.values()
    if code.stage == "check" and code.entry is None and code.name != "token-count"
]


@pytest.mark.parametrize("code", SNAPSHOTS, ids=lambda code: code.name)
def test_rendering_is_the_golden_one(
    code: Code, request: pytest.FixtureRequest
) -> None:
    name = code.name
    source = Source(f"{name}.pat", code.bad)
    text = render_text(findings(source))
    golden = HERE / "golden" / f"{name}.txt"
    if request.config.getoption("--update-golden", default=False):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_an_orphan() -> None:
    names = {path.stem for path in (HERE / "golden").glob("*.txt")}
    assert names == {code.name for code in SNAPSHOTS}
