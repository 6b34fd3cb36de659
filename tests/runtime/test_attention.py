"""An attention of a package: what it takes, what it refuses, what it loads and when."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc.runtime.attention import PackagedAttention, load
from patternc.runtime.choice import choose
from patternc.runtime.format import PackageError
from patternc.runtime.launch import OutOfResources
from tests.runtime.packages import (
    PROGRAMS,
    TRAINED,
    StubDriver,
    quick_bytes,
    quick_package,
)

ROOT = Path(__file__).parents[2]


def attention(
    name: str = "causal", driver: StubDriver | None = None, **changes: Any
) -> tuple[PackagedAttention, StubDriver]:
    """An attention whose tensors are the CPU's, which nothing reads."""
    own = driver or StubDriver()
    attn = PackagedAttention(quick_package(name, replace(TRAINED, **changes)), own)
    host = attn._ready()
    host.INTERPRETED = True
    found = host.access_of
    if own.target != "sm_90":  # on a GPU the host code asks the device
        host.access_of = lambda *x: found(*x).replace("descriptor", "aligned")
    return attn, own


def tensors(
    length: int = 70, dim: int = 64, dtype: torch.dtype = torch.float16
) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.zeros(2, 4, length, dim, dtype=dtype)
    k = torch.zeros(2, 2, length, dim, dtype=dtype)
    return q, k, k.clone()


def kernels(driver: StubDriver) -> list[str]:
    return [launch.entry for launch in driver.launches]


def test_a_call_and_its_gradient() -> None:
    attn, driver = attention()
    q, k, v = (x.requires_grad_() for x in tensors())
    out, lse = attn(q, k, v, return_lse=True)
    assert out.shape == q.shape and lse.shape == (2, 4, 70)
    assert kernels(driver) == ["forward_kernel"] * 2
    found = torch.autograd.grad(out.sum() + lse.sum(), (q, k, v))
    assert [x.shape for x in found] == [x.shape for x in (q, k, v)]
    gradients = ["query_gradient_kernel"] * 2 + ["key_gradient_kernel"] * 2
    assert kernels(driver)[2:] == ["delta_kernel", *gradients]
    assert {launch.stream for launch in driver.launches} == {77}


def test_a_gradient_twice_is_an_error() -> None:
    attn, _ = attention()
    q, k, v = (x.requires_grad_() for x in tensors())
    (first,) = torch.autograd.grad(attn(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        torch.autograd.grad(first.sum(), q)


def test_code_is_loaded_once_and_when_needed() -> None:
    attn, driver = attention()
    assert driver.loaded == []
    for _ in range(3):
        attn(*tensors())
    assert len(driver.loaded) == len(set(driver.loaded)) == 2
    attn(*tensors(length=1))
    assert len(driver.loaded) == 5  # rows are packed, and their shares combined


def test_many_threads_load_once() -> None:
    attn, driver = attention()
    failed: list[Exception] = []

    def call() -> None:
        try:
            for _ in range(20):
                attn(*tensors())
        except Exception as error:  # noqa: BLE001, to tell it in this thread
            failed.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(driver.loaded) == 2
    assert len(driver.launches) == 8 * 20 * 2


def test_two_packages_do_not_mix() -> None:
    first, first_driver = attention("causal")
    second, second_driver = attention("duo")
    for attn in (first, second, first):
        attn(*tensors())
    assert first._host.NAME == "causal_gqa" and second._host.NAME == "duo"
    assert len(first_driver.launches) == 4 and len(second_driver.launches) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape),
        lambda x: torch.zeros(*x.shape[:3], 67, dtype=x.dtype)[..., :64],
        lambda x: x[:, :, :1].expand(x.shape),
    ],
    ids=["columns", "unaligned", "odd rows", "expanded"],
)
def test_tensors_that_kernels_cannot_read_are_copied(change: Any) -> None:
    attn, driver = attention()
    q, k, v = tensors()
    assert attn(change(q), k, change(v)).shape == q.shape
    assert len(driver.launches) == 2


def test_a_head_size_whose_rows_start_anywhere() -> None:
    attn, driver = attention(head_dims=(20, 12))
    q, k, v = tensors(dim=12)
    assert attn(q, k, v).shape == q.shape
    assert len(driver.launches) == 2


def test_what_the_package_was_not_built_for() -> None:
    attn, _ = attention()
    q, k, v = tensors()
    with pytest.raises(PackageError, match=r"built for torch\.float16, and `q` is"):
        attn(q.bfloat16(), k.bfloat16(), v.bfloat16())
    with pytest.raises(PackageError, match="built for head sizes 64, and `q` has 32"):
        attn(q[..., :32], k[..., :32], v[..., :32])
    with pytest.raises(PackageError, match="built for head sizes 64, and `v` has 32"):
        attn(q, k, v[..., :32])
    with pytest.raises(PackageError, match="positive scales, got -1"):
        attn(q, k, v, scale=-1.0)
    with pytest.raises(
        PackageError, match="no forward_kernel of sm_90 and fp16.*padded"
    ):
        attn(q, k, v, lengths=torch.tensor([3, 4]))
    forward, _ = attention(backward=False)
    with pytest.raises(ValueError, match="build it with --backward"):
        forward(q.requires_grad_(), k, v)
    with torch.no_grad():
        forward(q, k, v)


def test_wrong_arguments_are_told_as_everywhere() -> None:
    attn, driver = attention()
    q, k, v = tensors()
    given: Any = None
    with pytest.raises(TypeError, match="causal_gqa: `q`: expected"):
        attn(given, k, v)
    with pytest.raises(ValueError, match="`k`: expected"):
        attn(q, k[:, :1], v[:, :1])
    with pytest.raises(ValueError, match="`q`: expected .* 4 dimensions"):
        attn(q[0], k, v)
    with pytest.raises(TypeError, match="`w` is not a run-time parameter"):
        attn(q, k, v, w=3)
    assert driver.launches == []


def test_a_run_time_parameter_reaches_the_kernel() -> None:
    attn, driver = attention("window")
    q, k, v = (torch.zeros(1, 2, 70, 64, dtype=torch.float16) for _ in range(3))
    given: Any = 0.5
    attn(q, k, v, w=7)
    assert len(driver.launches) == 2
    with pytest.raises(TypeError, match="expected an integer"):
        attn(q, k, v, w=given)


def test_listed_tiles_are_those_of_whole_calls() -> None:
    attn, driver = attention("ordered")
    length = attn.manifest.facts.layout_size
    assert length is not None
    attn(*tensors(length))
    assert kernels(driver) == ["ordered_kernel"] * 2
    q, k, v = tensors(length)
    with pytest.raises(PackageError, match="lists the tiles of 125 queries"):
        attn(q[:, :, 1:].contiguous(), k, v)


def test_few_queries_without_their_own_kernels() -> None:
    attn, driver = attention(decode=False)
    q, k, v = tensors(5000)
    attn._host.multiprocessors = lambda _: 1 << 20
    attn(q[:, :, :1].contiguous(), k, v)
    assert kernels(driver) == ["forward_kernel"] * 2


def test_all_code_can_be_loaded_before() -> None:
    attn, driver = attention()
    attn.prepare(None) if torch.cuda.is_available() else _prepare(attn)
    count = len(driver.loaded)
    own = [x for x in attn.manifest.variants if x.target == "sm_90"]
    assert count == len(own)
    attn(*tensors())
    assert len(driver.loaded) == count


def _prepare(attn: PackagedAttention) -> None:
    assert attn._code is not None
    attn._code.choice(0)
    for at in range(len(attn.manifest.variants)):
        attn._code.load(at, 0)


@pytest.mark.parametrize(
    ("device", "target", "is_ptx"),
    [
        ("sm_80", "sm_80", False),
        ("sm_86", "sm_80", False),
        ("sm_89", "sm_80", False),
        ("sm_90", "sm_90", False),
        ("sm_100", "sm_80", True),
        ("sm_120", "sm_80", True),
        ("gfx942", "gfx942", False),
    ],
)
def test_which_code_a_device_runs(device: str, target: str, is_ptx: bool) -> None:
    found = choose(["sm_80", "sm_90", "gfx942"], ["sm_80"], device)
    assert (found.target, found.is_ptx) == (target, is_ptx)
    assert found.has_tma == (target == "sm_90")


@pytest.mark.parametrize("device", ["sm_75", "gfx90a", "sm_90"])
def test_a_device_without_code_is_refused(device: str) -> None:
    with pytest.raises(
        PackageError, match=f"this device is {device}.*--target {device}"
    ):
        choose(["sm_80", "gfx942"], [], device)
    if device == "sm_90":
        assert choose(["sm_80"], ["sm_80"], device).is_ptx


def test_a_later_device_takes_ptx_and_says_so_once() -> None:
    driver = StubDriver(target="sm_120")
    attn, _ = attention(driver=driver, targets=("sm_80",))
    with pytest.warns(
        UserWarning, match="no code for sm_120; the driver assembles its"
    ):
        attn(*tensors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attn(*tensors())
    assert all(x.startswith(b"// PTX ") and x.endswith(b"\0") for x in driver.loaded)


def test_too_little_shared_memory_is_told() -> None:
    driver = StubDriver(shared=1000)
    attn, _ = attention(driver=driver)
    with pytest.raises(ValueError, match="needs 1024 bytes of shared memory.*smaller"):
        attn(*tensors())
    assert driver.launches == []
    assert issubclass(OutOfResources, Exception)


def test_a_plan_is_made_and_used_again() -> None:
    attn, driver = attention("shares")
    q, k, v = tensors()
    plan = attn.plan(q, k)
    assert [x.shape for x in plan.tables.values()] == [(2, 4, 2, 2)]
    planning = kernels(driver)
    assert planning[0] == "parts_of_map_0" and planning[-1] == "choose_kernel"
    assert len(driver.launches[0].grid) == 2
    driver.launches.clear()
    attn(q, k, v)
    whole = kernels(driver)
    assert whole[: len(planning)] == planning
    for again in range(2):
        driver.launches.clear()
        attn(q, k, v, plan=plan)
        lists = ["list_blocks_kernel"] if again == 0 else []  # kept for the same plan
        assert kernels(driver) == [*lists, "forward_kernel", "forward_kernel"]
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(attn(q, k, v, plan=plan).sum(), q)
    assert gradient.shape == q.shape


@pytest.mark.parametrize("name", ["largest", "shares"])
def test_plans_have_kernels_for_every_number_of_groups(name: str) -> None:
    attn, driver = attention(name, head_dims=(64, 20))
    sizes = (1, 17, 70, 200, 300, 700, 1500, 9000)
    for n_k in (*sizes, *([600_000] if name == "shares" else [])):
        for n_q, dim in ((1, 64), (5, 20)):
            q = torch.zeros(1, 4, n_q, dim, dtype=torch.float16)
            k = torch.zeros(1, 2, n_k, dim, dtype=torch.float16)
            attn.plan(q, k, q_offset=n_k)
    expected = {"choose_kernel", "mark_kernel", "segment_kernel"}
    if name == "shares":
        expected |= {"count_kernel", "join_kernel"}
    assert expected <= set(kernels(driver))


def test_a_plan_of_another_call_is_refused() -> None:
    attn, driver = attention("shares")
    q, k, v = tensors()
    plan = attn.plan(q, k)
    driver.launches.clear()
    other, _ = attention("shares")
    with pytest.raises(ValueError, match="made by another package"):
        other(q, k, v, plan=plan)
    with pytest.raises(ValueError, match="made for batch, queries, keys and offset"):
        attn(q[:, :, 1:].contiguous(), k, v, plan=plan)
    with pytest.raises(ValueError, match="made for batch, queries, keys and offset"):
        attn(q, k, v, q_offset=3, plan=plan)
    wrong: Any = plan.tables
    with pytest.raises(TypeError, match="expected what `plan` gave, got dict"):
        attn(q, k, v, plan=wrong)
    with pytest.raises(TypeError, match="`best` is what a plan chooses"):
        attn(q, k, v, best=plan.tables["best"])
    with pytest.raises(TypeError, match="`first_1_of_best` is what a plan|is neither"):
        attn(q, k, v, first_1_of_best=3)
    plain, _ = attention("causal")
    with pytest.raises(TypeError, match="the program selects nothing"):
        plain(q, k, v, plan=plan)
    with pytest.raises(ValueError, match="selects nothing to plan"):
        plain.plan(q, k)
    params, _ = attention("largest")
    made = params.plan(q, k, n=5)
    with pytest.raises(ValueError, match="run-time parameters .* 5.* 6"):
        params(q, k, v, n=6, plan=made)
    assert driver.launches == []


def test_inputs_are_checked_and_widened() -> None:
    attn, driver = attention("slopes")
    q, k, v = tensors()
    slope, bias = torch.ones(4), torch.ones(2, 70)
    attn(q, k, v, slope=slope, bias=bias, w=5)
    assert len(driver.launches) == 2
    with pytest.raises(TypeError, match="`bias`: expected a tensor of float"):
        attn(q, k, v, slope=slope)
    with pytest.raises(ValueError, match=r"`bias`: expected \[2, 70\]"):
        attn(q, k, v, slope=slope, bias=bias[:, 1:])
    with pytest.raises(TypeError, match="`slop` is neither a run-time parameter nor"):
        attn(q, k, v, slope=slope, bias=bias, slop=slope)
    slope.requires_grad_()
    out = attn(q, k, v, slope=slope, bias=bias)
    (gradient,) = torch.autograd.grad(out.sum(), slope)
    assert gradient.shape == (4,) and gradient.dtype == torch.float32
    names = {x: y for launch in driver.launches for x, y in [(launch.entry, 1)]}
    assert "key_gradient_kernel" in names


def test_rows_are_finished_in_the_kernel_unless_autograd_looks() -> None:
    attn, driver = attention("gated")
    q, k, v = tensors()
    slope, gate = torch.ones(4), torch.zeros(2, 70, 4)
    forward = [x for x in attn.manifest.variants if "EPILOGUE" in x.constants]

    def finished() -> set[object]:
        code = {attn.package.blob(x.code): x.constants["EPILOGUE"] for x in forward}
        found: set[object] = {code[x.code] for x in driver.launches if x.code in code}
        driver.launches.clear()
        return found

    assert attn(q, k, v, gate=gate, slope=slope).shape == q.shape
    assert finished() == {True}
    gate.requires_grad_()
    out = attn(q, k, v, gate=gate, slope=slope)
    assert finished() == {False}
    (gradient,) = torch.autograd.grad(out.sum(), gate)
    assert gradient.shape == gate.shape
    told = "`q`: expected every query among the keys"
    with torch.no_grad(), pytest.raises(ValueError, match=told):
        attn(q, k, v, gate=gate, slope=slope, q_offset=3)


def test_shares_of_rows_that_autograd_finishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One query for each head, whose keys several programs share."""
    program = "attention shared { heads 4 kv 2 mask causal sink 0.5 }"
    monkeypatch.setitem(PROGRAMS, "shared", program)
    attn, driver = attention("shared")
    combine = [x for x in attn.manifest.variants if x.kernel == "combine_kernel"]
    q = torch.zeros(1, 4, 1, 64, dtype=torch.float16)
    k, v = torch.zeros(2, 1, 2, 9000, 64, dtype=torch.float16)
    for looks in (False, True):
        driver.launches.clear()
        out = attn(q.requires_grad_(looks), k, v)
        assert (out.grad_fn is not None) == looks
        code = driver.launches[-1].code
        (own,) = (x for x in combine if attn.package.blob(x.code) == code)
        assert own.constants["EPILOGUE"] != looks


def test_sequences_of_finished_rows_have_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = "attention held { heads 4 kv 2 mask causal sink 0.5 }"
    monkeypatch.setitem(PROGRAMS, "held", program)
    attn, driver = attention("held", forms=("padded", "packed"))
    q, k, v = tensors()
    lengths = torch.tensor([3, 70])
    assert attn(q, k, v, lengths=lengths).shape == q.shape
    driver.launches.clear()
    with pytest.raises(ValueError, match="no gradient .* has sinks or outputs"):
        attn(q.requires_grad_(), k, v, lengths=lengths)
    assert driver.launches == []


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint8])
def test_integer_inputs_have_32_bits(dtype: torch.dtype) -> None:
    attn, _ = attention("given")
    host: Any = attn._host
    seen = []

    def attend(*_: object, **given: Tensor) -> tuple[int, int]:
        seen.append(given["far"].dtype)
        return 0, 0

    host.forward = attend
    q, k, v = (x[:, :2].contiguous() for x in tensors())
    given: dict[str, Any] = {
        "columns": torch.zeros(2, 70, dtype=torch.bool),
        "diagonals": torch.zeros(2, 2, 400, dtype=torch.bool),
    }
    far = torch.zeros(2, dtype=torch.int64)
    attn(q, k, v, far=far.to(dtype), **given)
    attn(q, k, v, far=far.to(torch.int32), **given)
    assert seen == [torch.int32] * 2
    with pytest.raises(PackageError, match=r"`far`: built for integers of 32 bits"):
        attn(q, k, v, far=far, **given)


@pytest.mark.parametrize("name", ["causal", "shares"])
def test_only_torch_is_imported(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.patk"
    path.write_bytes(quick_bytes(name, TRAINED))
    code = f"""
import sys
for name in ("triton", "lark", "islpy", "sympy"):
    sys.modules[name] = None
import torch
from patternc.runtime import PackagedAttention, read_package


class Nothing:  # a driver that does nothing
    def __getattr__(self, name):
        words = {{"architecture": "sm_90", "most_shared": 1 << 20, "encode": bytes(128)}}
        return lambda *_: words.get(name, 0)


attn = PackagedAttention(read_package({str(path)!r}), Nothing())
attn._ready().INTERPRETED = True
q = torch.zeros(1, 4, 9, 64, dtype=torch.float16, requires_grad=True)
k = torch.zeros(1, 2, 9, 64, dtype=torch.float16)
torch.autograd.grad(attn(q, k, k).sum(), q)
print(sorted(x for x in sys.modules if x.startswith("patternc")))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "patternc.ir" not in done.stdout and "patternc.backends" not in done.stdout


def test_a_copied_folder_works_alone(tmp_path: Path) -> None:
    folder = ROOT / "patternc" / "runtime"
    shutil.copytree(folder, tmp_path / "attentions", ignore=lambda *_: ["__pycache__"])
    path = tmp_path / "causal.patk"
    path.write_bytes(quick_bytes("causal", TRAINED))
    code = f"import attentions; print(attentions.load({str(path)!r}).name)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "causal_gqa\n"


def test_a_package_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "causal.patk"
    path.write_bytes(quick_bytes("causal", TRAINED))
    assert load(path).manifest.head_dims == (64,)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.patk")


def test_documents_have_kernels_for_every_call() -> None:
    attn, driver = attention("packed_documents", head_dims=(64, 128))
    attn._host.is_hopper = lambda _: True
    for n_q, n_k in ((70, 70), (1000, 1000), (1, 5000)):
        for dim in (64, 128):
            q = torch.zeros(1, 4, n_q, dim, dtype=torch.float16)
            k = torch.zeros(1, 2, n_k, dim, dtype=torch.float16)
            doc = (torch.arange(n_k) // 300).to(torch.int32)[None]
            for cores in (1, 1 << 20):
                attn._host.multiprocessors = lambda _, own=cores: own
                attn(q, k, k, doc=doc)
    assert {"forward_kernel", "combine_kernel"} <= set(kernels(driver))
    q = torch.zeros(1, 4, 100, 64, dtype=torch.float16, requires_grad=True)
    k = torch.zeros(1, 2, 100, 64, dtype=torch.float16)
    (gradient,) = torch.autograd.grad(attn(q, k, k, doc=doc[:, :100]).sum(), q)
    assert gradient.shape == q.shape


def test_sequences_have_kernels_for_every_length() -> None:
    attn, driver = attention(forms=("padded", "packed"), head_dims=(64, 128))
    attn._host.is_hopper = lambda _: True
    for length, dim in ((70, 64), (70, 128), (3000, 64), (20_000, 64), (3000, 128)):
        shape = (1, length, dim)
        q = torch.empty(1, 4, *shape[1:], dtype=torch.float16)
        k = torch.empty(1, 2, *shape[1:], dtype=torch.float16)
        for cores in (1, 1 << 20):
            attn._host.multiprocessors = lambda _, own=cores: own
            attn(q, k, k, lengths=torch.tensor([length]))
            ends = torch.tensor([0, length // 2, length])
            attn(q, k, k, cu_seqlens=ends, max_seqlen=length)
    assert {"hopper_kernel", "forward_kernel"} <= set(kernels(driver))
