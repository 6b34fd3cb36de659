"""The command line: words, exit codes, streams, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patternc import stdlib_patterns
from patternc.cli import COMMANDS, main
from patternc.cli.files import write_whole
from patternc.cli.mask import digest, tile_counts

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROGRAM = """\
attention first { heads 2 mask causal assert every q has k }
attention second(w = 8) { heads 2 mask window(w) }
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "two.pat"
    path.write_text(PROGRAM)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.pat"
    path.write_text("attention a { heads 2 mask windw(4) & sinc(3) }\n")
    return str(path)


def test_check_says_ok(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", program]) == 0
    assert capsys.readouterr().out == f"{program}: ok\n"


def test_check_tells_every_error_of_every_file(
    program: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", bad, program, "/nowhere/at_all.pat"]) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{program}: ok\n"
    assert "windw" in shown.err and "sinc" in shown.err and "at_all" in shown.err


def test_check_in_json_is_one_object_a_line(
    bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", bad, "--format", "json"]) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    found = [json.loads(line) for line in shown.out.splitlines()]
    assert [item["line"] for item in found] == [1, 1]
    assert all(item["severity"] == "error" and item["file"] == bad for item in found)


OF_PROGRAMS = sorted(set(COMMANDS) - {"check", "patterns", "inspect", "runtime"})


@pytest.mark.parametrize("command", OF_PROGRAMS)
def test_errors_of_a_program_end_every_command(
    command: str, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = command in ("compile", "build", "export")
    out = ["-o", str(tmp_path / "out")] if writes else []
    out += ["--format", "hf-kernel"] if command == "export" else []
    assert main([command, bad, *out]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "windw" in shown.err and "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["check"],
        ["mask", "x.pat", "--q-len", "0"],
        ["mask", "x.pat", "--head", "-1"],
        ["mask", "x.pat", "--k-len", "many"],
        ["mask", "x.pat", "--via", "magic"],
        ["mask", "x.pat", "--k-len", "1000000"],
        ["mask", "x.pat", "--out", "mask.jpg"],
        ["mask", "x.pat", "--set", "w"],
        ["mask", "x.pat", "--input", "doc"],
        ["mask", "x.pat", "--input", "doc=doc.npz"],
        ["patterns", "neighbourhood"],
        ["compile", "x.pat"],
    ],
)
def test_bad_usage_exits_with_2(
    arguments: list[str],
    program: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(Path(program).parent)
    Path("x.pat").write_text("attention a(w = 4) { heads 1 mask window(w) }")
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_head_that_is_not_there_is_bad_usage(program: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["mask", program, "--entry", "first", "--head", "2", "--digest"])
    assert exit_.value.code == 2


def _digest(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> object:
    assert main(["mask", *arguments, "--digest"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("via", ["reference", "plan"])
def test_digest_of_a_mask_made_by_hand(
    via: str, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--q-len", "70", "--k-len", "130", "--q-offset", "3"]
    entry = ["--entry", "second", "--set", "w=5"]
    found = _digest([program, *entry, *sizes, "--via", via], capsys)
    q, k = np.arange(70)[:, None] + 3, np.arange(130)[None, :]
    mask = (k <= q) & (q - k < 5)
    packed = np.packbits(mask, axis=None).tobytes()
    assert found == {
        "visible": int(mask.sum()),
        "density": mask.sum() / mask.size,
        # Rows 0..63 and 64..69 against keys 0..63, 64..127, 128..129.
        "tiles": {"empty": 2, "partial": 4, "full": 0},
        "empty_rows": 0,
        "sha256": hashlib.sha256(packed).hexdigest()[:12],
    }


def test_patterns_lists_every_standard_pattern(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["patterns"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(stdlib_patterns.files())
    (window,) = [line for line in lines if line.startswith("window ")]
    assert window.split(maxsplit=1)[1] == (
        "arXiv 2310.06825  a query sees itself and the w - 1 keys before it."
    )


def test_patterns_shows_the_file_and_its_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["patterns", "block_diagonal"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(stdlib_patterns.text("block_diagonal"))
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    # 48 x 48 pairs in blocks of 12, two rows to a line.
    assert rows[0] == f"│{'█' * 12}{' ' * 36}│" and len(rows) == 24
    assert "head 0: 576 of 2304 pairs visible" in shown


def test_the_default_sizes_are_512(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _digest([program, "--entry", "first"], capsys)
    assert isinstance(found, dict)
    assert found["visible"] == 512 * 513 // 2
    assert found["tiles"] == {"empty": 28, "partial": 8, "full": 28}


@pytest.mark.parametrize("head", ["0", "5", "7"])
@pytest.mark.parametrize("sizes", [(1, 1), (65, 200), (200, 65)])
def test_both_ways_to_a_mask_agree(
    head: str, sizes: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    q_len, k_len = map(str, sizes)
    common = [str(EXAMPLES / "phi3_small.pat"), "--head", head]
    common += ["--q-len", q_len, "--k-len", k_len]
    reference = _digest([*common, "--via", "reference"], capsys)
    assert reference == _digest([*common, "--via", "plan"], capsys)


def test_ragged_tiles_are_judged_by_what_exists() -> None:
    mask = np.zeros((65, 66), dtype=np.bool_)
    mask[64, 64:] = True
    assert tile_counts(mask).full == 1 and tile_counts(mask).empty == 3
    mask[64, 65] = False
    assert tile_counts(mask).partial == 1
    assert digest(mask).empty_rows == 64


def test_out_writes_the_mask(program: str, tmp_path: Path) -> None:
    common = ["mask", program, "--entry", "first", "--k-len", "40", "--digest"]
    assert main([*common, "--out", str(tmp_path / "m.npy")]) == 0
    mask = np.load(tmp_path / "m.npy")
    assert mask.dtype == np.bool_ and (mask == np.tri(40, dtype=np.bool_)).all()
    assert main([*common, "--out", str(tmp_path / "m.png")]) == 0
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == (320, 320)
        grey = np.asarray(picture.convert("L"))
    assert grey[319, 0] < grey[0, 319]  # visible pairs are the dark ones


def test_the_picture_shows_the_pattern(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", program, "--entry", "first", "--k-len", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["┌────┐", "│█▄  │", "│███▄│", "└────┘"]


def test_compile_writes_a_module_for_each_attention(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compile", program, "-o", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["two_first.py", "two_second.py"]
    assert main(["compile", program, "-o", str(out), "--entry", "first"]) == 0
    assert (out / "two.py").exists()
    for path in out.iterdir():
        compile(path.read_text(), str(path), "exec")


def test_compile_for_hopper_adds_a_kernel(tmp_path: Path, program: str) -> None:
    for target, has_one in (("any", False), ("sm_90", True)):
        command = ["compile", program, "-o", str(tmp_path), "--entry", "first"]
        assert main([*command, "--target", target]) == 0
        (path,) = tmp_path.glob("*.py")
        assert ("def hopper_kernel(" in path.read_text()) == has_one


def test_compile_writes_nothing_if_one_attention_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "half.pat"
    path.write_text(
        "attention good { heads 1 mask causal }\n"
        "attention leaks { heads 1 mask full assert mask within causal }\n"
    )
    assert main(["compile", str(path), "-o", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "half.pat:2" in capsys.readouterr().err


def test_writing_fails_whole(tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    (target / "occupied").touch()
    with pytest.raises(OSError):
        write_whole(target, b"text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    write_whole(tmp_path / "new", b"text")
    assert (tmp_path / "new").read_bytes() == b"text"


def test_explain_tells_loops_counts_and_proofs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(EXAMPLES / "03_streaming.pat")
    assert main(["explain", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "sink_and_window"
    kinds = [loop["kind"] for group in found["groups"] for loop in group["loops"]]
    assert set(kinds) == {"full", "partial"}
    assert [item["holds"] for item in found["decisions"]] == [True, True]
    (count,) = [item for item in found["counts"] if item["n"] == 1024]
    q, k = np.arange(1024)[:, None], np.arange(1024)[None, :]
    assert count["visible"] == ((k <= q) & ((k < 4) | (q - k < 256))).sum()
    assert 0 < count["partial"] < count["visited"] < count["total"]
    assert main(["explain", path]) == 0
    text = capsys.readouterr().out
    for part in ("for kt in range(", "density:", "holds:", "# after"):
        assert part in text


def test_verify_passes_on_a_small_program(
    program: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["verify", program, "--entry", "second", "--backend", "tiled"]
    assert main(arguments) == 0
    assert "tiled" in capsys.readouterr().out
    monkeypatch.setattr("patternc.cli.verify.SIZES", ((20, 30),))
    assert main([*arguments, "--backward", "--format", "json"]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    found = {(line["quantity"], line["of"]) for line in lines}
    gradients = {("gradient", name) for name in "qkv"}
    assert found == {("output", ""), ("lse", ""), *gradients}


def test_bench_times_the_compiler(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", program, "--compile", "--repeat", "1"]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown and "second" in shown


def test_the_suite_takes_no_files(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["bench"], ["bench", "--suite", program]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert "expected files, --suite" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_the_suite_needs_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--suite"])
    assert "expected a CUDA device" in capsys.readouterr().err
    path = str(ROOT / "examples" / "01_causal.pat")
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--tune", path])
    assert "expected a CUDA device" in capsys.readouterr().err


def test_the_suite_says_what_its_parts_and_rows_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for option, value, expected in (
        ("--part", "sideways", "expected forward, backward, shapes, ready"),
        ("--rows", "causal,windows", "rows are dense, causal"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "--suite", option, value])
        assert expected in capsys.readouterr().err


def test_records_become_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.json"
    path.write_text('{"machine": "a box", "results": [], "ready": []}')
    assert main(["bench", "--suite", "--merge", str(path), str(path)]) == 0
    assert "Device: a box." in capsys.readouterr().out
    path.write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--suite", "--merge", str(path)])
    assert "not the suite's records" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(program: str) -> None:
    command = [sys.executable, "-m", "patternc", "mask", program, "--entry", "first"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
