"""Data as Python text.

In: numbers, strings, maps and sequences. Out: assignments, as a formatter leaves them.
Not its job: what they say (`emit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | int | None | Mapping[str, "Value"] | Sequence["Value"]


def literal(target: str, value: Value) -> list[str]:
    """An assignment of data, one item a line, as a formatter leaves it."""
    return _literal(f"{target} = ", value, "", "")


def _literal(head: str, value: Value, indent: str, tail: str) -> list[str]:
    if isinstance(value, str):
        return [f"{indent}{head}{_quoted(value)}{tail}"]
    if value is None or isinstance(value, int):
        return [f"{indent}{head}{value}{tail}"]
    is_map = isinstance(value, Mapping)
    opening, closing = "{}" if is_map else "[]"
    if not value:
        return [f"{indent}{head}{opening}{closing}{tail}"]
    lines = [f"{indent}{head}{opening}"]
    if isinstance(value, Mapping):
        for key, item in value.items():
            lines += _literal(f"{_quoted(key)}: ", item, indent + "    ", ",")
    else:
        for item in value:
            lines += _literal("", item, indent + "    ", ",")
    return [*lines, f"{indent}{closing}{tail}"]


def _quoted(text: str) -> str:
    """A string literal in double quotes, ASCII only."""
    inner = text.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{inner}"'


def heads_tensor(target: str, heads: Sequence[int]) -> list[str]:
    """Heads as a tensor that is filled on `device`, and not copied to it."""
    step = heads[1] - heads[0] if len(heads) > 1 else 1
    if tuple(heads) == tuple(range(heads[0], heads[-1] + 1, step)):
        ends = f"{heads[0]}, {heads[-1] + 1}, {step}"
        return [f"{target} = torch.arange({ends}, device=device)"]
    parts = "torch.arange(head, head + 1, device=device) for head in heads"
    return [
        *heads_literal("heads", heads),
        f"parts = [{parts}]",
        f"{target} = torch.cat(parts)",
    ]


def heads_literal(target: str, heads: Sequence[int]) -> list[str]:
    """Heads as a range if they are one, else one a line."""
    step = heads[1] - heads[0] if len(heads) > 1 else 1
    if tuple(heads) == tuple(range(heads[0], heads[-1] + 1, step)):
        extra = "" if step == 1 else f", {step}"
        return [f"{target} = range({heads[0]}, {heads[-1] + 1}{extra})"]
    return literal(target, tuple(heads))
