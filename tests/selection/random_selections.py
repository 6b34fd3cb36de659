"""Random programs that select, each with a meaning of its own.

In: a seeded generator. Out: a `Program`: its text, one call, and for every selection
the set of its keys, computed by loops over Python dictionaries, as docs/language.md says
and without the compiler. Not its job: comparing (`test_random`).

A map is a dictionary from keys to numbers (or vectors), for one batch element and one
head; what is not live is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Keys = tuple[int, ...]
Number = float | Floats
Entries = dict[Keys, Number]


@dataclass(frozen=True)
class Call:
    """The tensors and sizes of one call."""

    q: Floats
    k: Floats
    scale: float
    q_offset: int
    kv_heads: int
    inputs: Mapping[str, NDArray[np.generic]]
    sets: dict[str, dict[tuple[int, int], set[Keys]]] = field(default_factory=dict)

    @property
    def heads(self) -> int:
        return int(self.q.shape[1])

    @property
    def n_k(self) -> int:
        return int(self.k.shape[2])

    def queries(self) -> range:
        return range(self.q_offset, self.q_offset + self.q.shape[2])

    def logit(self, b: int, h: int, q: int, k: int) -> float:
        group = h // (self.heads // self.kv_heads)
        row, key = self.q[b, h, q - self.q_offset], self.k[b, group, k]
        return float(row @ key) * self.scale

    def sharing(self, h: int, over: str) -> list[int]:
        size = self.heads // self.kv_heads
        everyone = range(self.heads)
        return [o for o in everyone if over == "h" or o // size == h // size]


@dataclass(frozen=True)
class Map:
    """A map in both forms. `keys` are texts, over tokens."""

    text: str
    keys: tuple[str, ...]
    at: Callable[[Call, int, int], Entries]
    channels: bool = False


@dataclass(frozen=True)
class Choice:
    """A selection in both forms."""

    name: str
    text: str
    keys: tuple[str, ...]
    at: Callable[[Call, int, int], set[Keys]]


@dataclass(frozen=True)
class Program:
    """A program and a call of it."""

    text: str
    call: Call
    choices: tuple[Choice, ...]
    mask: Callable[[Call, int, int, int, int], bool]


def of_tokens(key: str) -> Callable[[int, int], int]:
    """A key of tokens as a function: the few forms that are drawn."""
    code = compile(key, "<key>", "eval")
    return lambda q, k: int(eval(code, {}, {"q": q, "k": k}))


# --- maps


def logits(condition: str, rows: str) -> Map:
    """`scores where P for R`, over tokens."""
    test = compile(condition, "<where>", "eval")
    on_rows = compile(rows, "<rows>", "eval")

    def at(call: Call, b: int, h: int) -> Entries:
        return {
            (q, k): call.logit(b, h, q, k)
            for q in call.queries()
            for k in range(call.n_k)
            if eval(test, {}, {"q": q, "k": k, "h": h, "N": call.n_k})
            and eval(on_rows, {}, {"q": q, "N": call.n_k})
        }

    return Map(f"(scores where {condition} for {rows})", ("q", "k"), at)


def pooled(rng: Random, tensor: str, size: int) -> Map:
    """`mean(Q by q // 4)` and its like, with channels."""
    how = rng.choice(("mean", "sum", "max", "min"))
    token = "q" if tensor == "Q" else "k"

    def at(call: Call, b: int, h: int) -> Entries:
        groups: dict[Keys, list[Floats]] = {}
        if tensor == "Q":
            rows = zip(call.queries(), call.q[b, h], strict=True)
        else:
            own = call.k[b, h // (call.heads // call.kv_heads)]
            rows = zip(range(call.n_k), own, strict=True)
        for token_at, row in rows:
            groups.setdefault((token_at // size,), []).append(row)
        return {key: _joined(how, rows) for key, rows in groups.items()}

    key = f"{token} // {size}" if size > 1 else token
    return Map(f"{how}({tensor} by {key})", (key,), at, channels=True)


def _joined(how: str, values: list[Floats]) -> Floats:
    together = np.stack(values)
    found = {
        "mean": together.mean(axis=0),
        "sum": together.sum(axis=0),
        "max": together.max(axis=0),
        "min": together.min(axis=0),
    }[how]
    return np.asarray(found)


def product(a: Map, b: Map) -> Map:
    def at(call: Call, e: int, h: int) -> Entries:
        left, right = a.at(call, e, h), b.at(call, e, h)
        return {
            (*i, *j): float(np.dot(x, y))
            for i, x in left.items()
            for j, y in right.items()
        }

    return Map(f"{a.text} @ {b.text}", (*a.keys, *b.keys), at)


def bent(name: str, inner: Map) -> Map:
    """A function of every number, of every channel too."""
    functions: dict[str, Callable[[Any], Any]] = {
        "relu": lambda x: np.maximum(x, 0),
        "abs": np.abs,
        "-": lambda x: -x,
        "tanh": np.tanh,
    }
    of = functions[name]

    def at(call: Call, b: int, h: int) -> Entries:
        return {key: of(x) for key, x in inner.at(call, b, h).items()}

    text = f"-({inner.text})" if name == "-" else f"{name}({inner.text})"
    return Map(text, inner.keys, at, inner.channels)


def table(name: str, sizes: tuple[int, int]) -> Map:
    """`name[h, q // a, k // b]`, an input of floats."""
    a, b = sizes
    keys = (f"q // {a}", f"k // {b}")

    def at(call: Call, e: int, h: int) -> Entries:
        values = call.inputs[name][e]
        found: Entries = {}
        for i in {q // a for q in call.queries()}:
            for j in {k // b for k in range(call.n_k)}:
                inside = 0 <= i < values.shape[1]
                found[i, j] = float(values[h, i, j]) if inside else 0.0
        return found

    return Map(f"{name}[h, {', '.join(keys)}]", keys, at)


def where(inner: Map, text: str, test: Callable[[Keys, Call, int], bool]) -> Map:
    def at(call: Call, b: int, h: int) -> Entries:
        found = inner.at(call, b, h).items()
        return {key: x for key, x in found if test(key, call, h)}

    return Map(f"({inner.text} where {text})", inner.keys, at, inner.channels)


def softmax(inner: Map) -> Map:
    """Over the last key."""

    def at(call: Call, b: int, h: int) -> Entries:
        entries = inner.at(call, b, h)
        rows: dict[Keys, list[float]] = {}
        for key, x in entries.items():
            rows.setdefault(key[:-1], []).append(float(x))
        found: Entries = {}
        for key, x in entries.items():
            top = max(rows[key[:-1]])
            total = sum(math.exp(y - top) for y in rows[key[:-1]])
            found[key] = math.exp(float(x) - top) / total
        return found

    return Map(f"softmax({inner.text})", inner.keys, at)


def reduced(
    how: str, inner: Map, keys: list[tuple[str, Callable[[Keys], int]]], over: str
) -> Map:
    """`sum(map by e1, e2 over g)`; without keys and with `over` the keys stay."""
    texts = tuple(text for text, _ in keys)

    def new(key: Keys) -> Keys:
        return key if not keys and over else tuple(of(key) for _, of in keys)

    def at(call: Call, b: int, h: int) -> Entries:
        groups: dict[Keys, list[Number]] = {}
        for other in call.sharing(h, over) if over else [h]:
            for key, x in inner.at(call, b, other).items():
                groups.setdefault(new(key), []).append(x)
        return {key: _reduced(how, values) for key, values in groups.items()}

    by = f" by {', '.join(texts)}" if texts else ""
    shared = f" over {over}" if over else ""
    own = inner.keys if not keys and over else texts
    return Map(f"{how}({inner.text}{by}{shared})", own, at, inner.channels)


def _reduced(how: str, values: list[Number]) -> Number:
    if how == "entropy":
        return sum(-float(x) * math.log(float(x)) for x in values if float(x) > 0)
    found = _joined(how, [np.asarray(x) for x in values])
    return found if found.ndim else float(found)


def combined(op: str, a: Map, b: Map, read: Callable[[Keys], Keys]) -> Map:
    """`a op b`, where a key of `a` tells that of `b`."""
    of: Callable[[Any, Any], Any] = {
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "//": lambda x, y: math.floor(x / y),
    }[op]

    def at(call: Call, e: int, h: int) -> Entries:
        left, right = a.at(call, e, h), b.at(call, e, h)
        return {
            key: of(x, right[read(key)])
            for key, x in left.items()
            if read(key) in right
        }

    return Map(f"({a.text} {op} {b.text})", a.keys, at, a.channels)


# --- choices


def ranked(entries: Entries, always: Callable[[Keys], bool]) -> list[Keys]:
    """`always` members by their keys, then by numbers, NaN last, ties by keys."""

    def place(key: Keys) -> tuple[object, ...]:
        x = float(entries[key])
        if always(key):
            return (0, 0.0, key)
        return (2, 0.0, key) if math.isnan(x) else (1, -x, key)

    return sorted(entries, key=place)


def chosen(
    entries: Entries,
    how: str,
    amount: float,
    always: Callable[[Keys], bool],
    least: int | None,
    most: int | None,
    crossing: str,
) -> list[Keys]:
    """The members of one scope."""
    order = ranked(entries, always)
    forced = sum(always(key) for key in order)
    if how == "top":
        count = math.floor(amount)
    elif how == "above":
        count = sum(always(key) or float(entries[key]) > amount for key in order)
    else:
        masses = [max(float(entries[key]), 0.0) for key in order]
        masses = [0.0 if math.isnan(x) else x for x in masses]
        sums = [0.0]
        for mass in masses:
            sums.append(sums[-1] + mass)
        wanted = amount * sums[-1]
        if crossing == "keep":
            count = sum(before < wanted for before in sums[:-1])
        else:
            count = sum(after <= wanted for after in sums[1:])
    count = max(count, least or 0)
    count = count if most is None else min(count, most)
    return order[: min(max(count, forced), len(order))]


def choice(
    name: str,
    values: Map,
    how: str,
    amount: tuple[str, Callable[[Call, int, int, Keys], float]],
    per: tuple[int, ...],
    over: str,
    always: tuple[str, Callable[[Keys], bool]] | None,
    bounds: tuple[int | None, int | None],
    crossing: str,
) -> Choice:
    """`top(n, map per e over g, always P, min a, max b, crossing drop)`."""
    least, most = bounds
    options = []
    if over:
        options.append(f"over {over}")
    if always is not None:
        options.append(f"always {always[0]}")
    if least is not None:
        options.append(f"min {least}")
    if most is not None:
        options.append(f"max {most}")
    if how == "top_p" and crossing == "drop":
        options.append("crossing drop")
    shown = [values.keys[place] for place in per]
    scope = f" per ({', '.join(shown)})" if len(shown) > 1 else ""
    scope = f" per {shown[0]}" if len(shown) == 1 else scope
    text = ", ".join([amount[0], f"{values.text}{scope}", *options])
    every = reduced("sum", values, [], over) if over else values

    def at(call: Call, b: int, h: int) -> set[Keys]:
        scopes: dict[Keys, Entries] = {}
        for key, x in every.at(call, b, h).items():
            own = tuple(key[place] for place in per)
            scopes.setdefault(own, {})[key] = x
        found: set[Keys] = set()
        test = (lambda key: False) if always is None else always[1]
        for own, entries in scopes.items():
            number = amount[1](call, b, h, own)
            found.update(chosen(entries, how, number, test, least, most, crossing))
        return found

    return Choice(name, f"{how}({text})", values.keys, at)


def widened(name: str, inner: Choice, n: int) -> Choice:
    """`widened(name of inner, n)`, for a choice of one key, and read one key before."""

    def at(call: Call, b: int, h: int) -> set[Keys]:
        return {(key - back,) for (key,) in inner.at(call, b, h) for back in range(n)}

    key = f"{inner.keys[0]} - 1"
    return Choice(name, f"widened({inner.name}, {n})", (key,), at)


def tested(name: str, values: Map, op: str, limit: float) -> Choice:
    """`map > number`."""
    of: Callable[[float], bool] = {
        "<": lambda x: x < limit,
        "<=": lambda x: x <= limit,
        ">": lambda x: x > limit,
        ">=": lambda x: x >= limit,
    }[op]

    def at(call: Call, b: int, h: int) -> set[Keys]:
        return {key for key, x in values.at(call, b, h).items() if of(float(x))}

    return Choice(name, f"{values.text} {op} {limit}", values.keys, at)


# --- drawing


def draw(rng: Random, channels: int = 4) -> Program:
    """One program with a call of at most 21 queries and 24 keys."""
    heads, kv_heads = rng.choice(((1, 1), (2, 1), (2, 2), (4, 2)))
    n_k = rng.randint(1, 24)
    n_q = rng.randint(1, 21)
    q_offset = rng.choice((n_k - n_q, n_k - n_q, 0, rng.randint(-3, 9)))
    batch = rng.choice((1, 1, 2))
    numbers = np.random.default_rng(rng.randrange(2**32))
    sizes = (rng.choice((1, 2, 3, 5)), rng.choice((1, 2, 4)))
    rows = max((q_offset + n_q - 1) // sizes[0] + 1, 0)
    columns = (n_k - 1) // sizes[1] + 1
    whole = numbers.integers(-2, 3, (batch, heads, rows, columns))  # many ties
    inputs: dict[str, NDArray[np.generic]] = {"given": whole.astype(np.float64)}
    call = Call(
        numbers.standard_normal((batch, heads, n_q, channels)),
        numbers.standard_normal((batch, kv_heads, n_k, channels)),
        0.5,
        q_offset,
        kv_heads,
        inputs,
    )
    drawer = Drawer(rng, call, sizes)
    choices = tuple(drawer.choice(f"chosen{n}") for n in range(rng.randint(1, 2)))
    last = choices[-1]
    if len(last.keys) == 1 and " per " not in last.text:
        choices = (*choices, widened("wide", last, 1 + (n_q + n_k) % 4))
    aware = None
    if rng.random() < 0.4:
        alone = reduced("mean", drawer.map(), [], "")
        aware = tested("aware", alone, rng.choice(("<", ">=")), 0.1234)
    return assemble(rng, call, sizes, choices, aware)


def assemble(
    rng: Random,
    call: Call,
    sizes: tuple[int, int],
    choices: tuple[Choice, ...],
    aware: Choice | None,
) -> Program:
    """The text, and the mask as a function of a pair."""
    a, b = sizes
    lines = [f"heads {call.heads} kv {call.kv_heads}"]
    lines.append(f"input given[h, q // {a}, k // {b}] : float")
    lines += [f"let {one.name} = {one.text}" for one in choices]
    terms = [_membership(one) for one in choices]
    body = " | ".join(terms)
    if aware is not None:
        lines.append(f"let aware = {aware.text}")
        body = f"({body} if aware else {terms[0]} & k % 3 < 2)"
        choices = (*choices, aware)
    is_causal = rng.random() < 0.6
    lines.append(f"mask {'causal & ' if is_causal else ''}({body} | q == k)")
    text = "attention drawn {\n    " + "\n    ".join(lines) + "\n}\n"
    of = {one.name: [of_tokens(key) for key in one.keys] for one in choices}

    def holds(name: str, h: int, e: int, q: int, k: int) -> bool:
        key = tuple(key_of(q, k) for key_of in of[name])
        return key in call.sets[name][e, h]

    def mask(call: Call, e: int, h: int, q: int, k: int) -> bool:
        own = [holds(one.name, h, e, q, k) for one in choices if one is not aware]
        seen = any(own)
        if aware is not None and not holds("aware", h, e, q, k):
            seen = own[0] and k % 3 < 2
        return (seen or q == k) and (k <= q or not is_causal)

    for one in choices:
        call.sets[one.name] = {
            (e, h): one.at(call, e, h)
            for e in range(len(call.q))
            for h in range(call.heads)
        }
    return Program(text, call, choices, mask)


def _membership(one: Choice) -> str:
    if not one.keys:
        return one.name
    shown = one.keys[0] if len(one.keys) == 1 else f"({', '.join(one.keys)})"
    return f"{shown} in {one.name}"


@dataclass(frozen=True)
class Drawer:
    """Draws maps and choices."""

    rng: Random
    call: Call
    sizes: tuple[int, int]

    def map(self) -> Map:
        """A map of numbers with one or two keys."""
        found = self.base()
        for _ in range(self.rng.randint(0, 2)):
            found = self.step(found)
        return found

    def base(self) -> Map:
        rng = self.rng
        match rng.randrange(5):
            case 0 | 1:
                condition = rng.choice(
                    ("k <= q", "q - k < 7", "k % 2 == h % 2", "k >= 0")
                )
                rows = rng.choice(("q >= N - 1", "q >= 0", "q % 3 == 1", "q < N"))
                made = logits(condition, rows)
                return softmax(made) if rng.random() < 0.7 else made
            case 2:
                return table("given", self.sizes)
            case _:
                left, right = (
                    pooled(rng, "Q", self.sizes[0]),
                    pooled(rng, "K", self.sizes[1]),
                )
                if rng.random() < 0.3:
                    left, right = (
                        bent("relu", left),
                        bent(rng.choice("-") or "-", right),
                    )
                return product(left, right)

    def step(self, inner: Map) -> Map:
        rng = self.rng
        match rng.randrange(5):
            case 0:
                return bent(rng.choice(("abs", "-", "tanh")), inner)
            case 1 if len(inner.keys) == 2:
                text = f"{inner.keys[1]} <= {inner.keys[0]}"
                limited = where(inner, text, lambda key, call, h: key[1] <= key[0])
                return softmax(limited) if rng.random() < 0.5 else limited
            case 2 if len(inner.keys) == 2:
                means = reduced(
                    "mean", inner, [(inner.keys[0], lambda key: key[0])], ""
                )
                op = rng.choice("+-*")
                return combined(op, inner, means, lambda key: (key[0],))
            case 3:
                over = rng.choice(("g", "h"))
                return reduced(rng.choice(("mean", "max")), inner, [], over)
        return inner

    def grouped(self, inner: Map) -> Map:
        """A map put together by new keys."""
        rng = self.rng
        how = rng.choice(("sum", "sum", "mean", "max", "min"))
        if len(inner.keys) != 2:
            return inner
        first, second = inner.keys
        new = {
            "columns": [(second, lambda key: key[1])],
            "rows": [(first, lambda key: key[0])],
            "diagonals": [(f"{first} - {second}", lambda key: key[0] - key[1])],
            "antidiagonals": [
                (f"({first} + {second}) % 5", lambda key: (key[0] + key[1]) % 5)
            ],
            "blocks": [
                (f"{first} // 2", lambda key: key[0] // 2),
                (f"{second} // 3", lambda key: key[1] // 3),
            ],
        }[
            rng.choice(
                ("columns", "columns", "rows", "diagonals", "antidiagonals", "blocks")
            )
        ]
        if len(new) == 1 and new[0][0] == first and how in ("sum", "mean"):
            how = "max"  # the rows of a softmax all have the sum 1, but for rounding
        return reduced(how, inner, new, rng.choice(("", "", "g")))

    def choice(self, name: str) -> Choice:
        rng = self.rng
        values = self.map()
        if rng.random() < 0.6:
            values = self.grouped(values)
        if rng.random() < 0.1:
            return tested(name, values, rng.choice(("<", "<=", ">", ">=")), 0.1234)
        how = rng.choice(("top", "top", "top_p", "above"))
        places = range(len(values.keys))
        per = tuple(place for place in places if rng.random() < 0.4)
        always = None
        if rng.random() < 0.5:
            last = len(values.keys) - 1
            always = (f"{values.keys[last]} == 0", lambda key: key[last] == 0)
        bounds = (
            rng.choice((None, None, 0, 1)),
            rng.choice((None, None, 1)),
        )
        if how == "top":
            amount = rng.choice((0, 1))
            shown = (str(amount), lambda call, b, h, own: float(amount))
            if rng.random() < 0.5:
                shown = (
                    "min(3, N) / 1.5",
                    lambda call, b, h, own: min(3, call.n_k) / 1.5,
                )
        else:
            number = rng.choice((0.0, 0.25, 0.5, 0.9, 1.0))
            shown = (str(number), lambda call, b, h, own: number)
        return choice(
            name,
            values,
            how,
            shown,
            per,
            rng.choice(("", "", "", "g", "h")),
            always,
            bounds,
            rng.choice(("keep", "drop")),
        )
