"""Text to abstract syntax.

In: a `Source`. Out: an `ast.File`, or a `PatternError` with every syntax error that was
found (one for each item). Not its job: names, types, meaning (`patternc.check`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from itertools import pairwise
from typing import cast

from lark import Lark
from lark import Token as LarkToken
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from patternc.diagnostics import Diagnostic, Label, PatternError
from patternc.grammar import build_parser
from patternc.limits import DIAGNOSTICS, NESTING, TOKENS
from patternc.source import Source, Span
from patternc.syntax import ast
from patternc.syntax.build import Builder, Token
from patternc.syntax.measure import literal_error, too_deep
from patternc.syntax.words import (
    ASSERT_WORDS,
    CLAUSES,
    KEYWORDS,
    NEVER_NAMES,
    OPTION_WORDS,
    expected,
)


def parse(source: Source) -> ast.File:
    """The items of a file. Raises `PatternError` with all syntax errors of the file."""
    try:
        return _parse_part(source, 0, len(source.text))
    except PatternError as whole:
        if whole.diagnostics[0].code == "token-count":
            raise
        errors = _errors_by_item(source)
        raise (PatternError(errors) if errors else whole) from None


_ITEM_START = re.compile(
    r"^(?:(?:pattern|def|attention)\b|layout\s+\w+\s*=)", re.MULTILINE
)


def _errors_by_item(source: Source) -> list[Diagnostic]:
    """The first error of every item, where items start at the start of a line."""
    starts = [found.start() for found in _ITEM_START.finditer(source.text)]
    found: list[Diagnostic] = []
    for start, end in pairwise([0, *starts, len(source.text)]):
        try:
            _parse_part(source, start, end)
        except PatternError as error:
            found.extend(error.diagnostics)
        if len(found) >= DIAGNOSTICS:
            break
    return found


@cache
def _parser() -> Lark:
    return build_parser(Builder())


def _parse_part(source: Source, start: int, end: int) -> ast.File:
    """Parse `text[start:end]`. Raises `PatternError` with the first error."""
    items = _Reader(source, start, end).read()
    deep = [found for item in items if (found := too_deep(item)) is not None]
    if deep:
        raise PatternError(deep)
    return ast.File(items, source)


class _Reader:
    """One run of the parser: names its tokens, feeds them, reports the first error."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source, self.start, self.end = source, start, end
        self.run: InteractiveParser = _parser().parse_interactive(
            source.text[start:end]
        )
        self.open: list[Token] = []  # brackets not yet closed
        self.clause: list[str] | None = None  # the tokens of the assert we are in
        self.signs = 0  # `~` and `-` in a row

    def read(self) -> tuple[ast.Item, ...]:
        """Feed every token. Raises `PatternError`."""
        lexed = lex(self.run)
        try:
            for count, raw in enumerate(lexed):
                if count >= TOKENS:
                    message = f"more than {TOKENS} words and signs in one file"
                    raise self.error("token-count", message, self.place(raw))
                self.feed(raw)
        except UnexpectedCharacters as error:
            at = self.start + (error.pos_in_stream or 0)
            raise self.bad_character(at) from None
        last = Token("$END", "", Span(self.source, self.end, self.end))
        return cast(tuple[ast.Item, ...], self.accept(last))

    def feed(self, raw: LarkToken) -> None:
        """Give one token to the parser."""
        span = self.place(raw)
        token = Token(self.terminal(raw), str(raw), span)
        found = literal_error(token)
        if found is not None:
            raise PatternError([found])
        self.watch_nesting(token)
        if token.type == "NAME" and token.text in NEVER_NAMES:
            raise self.unexpected(token)
        self.accept(token)

    def accept(self, token: Token) -> object:
        """Feed a token whose terminal is known; the tree, once the input ends."""
        try:
            return self.run.feed_token(cast(LarkToken, token))
        except UnexpectedToken:
            raise self.unexpected(token) from None

    def place(self, raw: LarkToken) -> Span:
        """Where a token of the lexer lies in the file."""
        at = self.start + (raw.start_pos or 0)
        return Span(self.source, at, at + len(raw))

    def terminal(self, raw: LarkToken) -> str:
        """The terminal of a token: a word is special only where it can stand."""
        possible = choices(self.run)
        kind, text = raw.type, str(raw)
        if kind == "NAME":
            kind = KEYWORDS.get(text, kind)
            if self.clause is not None and ASSERT_WORDS.get(text) in possible:
                kind = ASSERT_WORDS[text]
            if text in OPTION_WORDS and not self.starts_option(raw):
                kind = "NAME"
            if kind not in possible:
                kind = "NAME"
        elif kind == "EQUAL" and self.clause in (["THE_MASK"], _UNION_OVER):
            kind = "SET_EQUAL"
        if kind == "ASSERT":
            self.clause = []
        elif kind in CLAUSES or (kind == "RBRACE" and len(self.open) < 2):
            self.clause = None  # not behind a set, whose bracket is a second one
        elif self.clause is not None and len(self.clause) < 4:
            self.clause.append(kind)
        return kind

    def starts_option(self, raw: LarkToken) -> bool:
        """Whether an operand follows, as in `min 2` and unlike `min(a, b)`."""
        text, at = self.source.text, self.place(raw).end
        while at < self.end and text[at] in " \t\r\n":
            at += 1
        is_call = str(raw) in ("min", "max") and text[at : at + 1] == "("
        return not is_call and _OPERAND_START.match(text, at) is not None

    def watch_nesting(self, token: Token) -> None:
        """Count open brackets and signs in a row, so that no deep tree is built."""
        if token.type in ("LPAR", "LSQUARE", "LBRACE"):
            self.open.append(token)
        elif token.type in ("RPAR", "RSQUARE", "RBRACE") and self.open:
            self.open.pop()
        self.signs = self.signs + 1 if token.type in ("TILDE", "MINUS") else 0
        if len(self.open) > NESTING or self.signs > NESTING:
            message = f"nested more than {NESTING} levels deep"
            raise self.error("nesting", message, token.span)

    def error(self, code: str, message: str, span: Span) -> PatternError:
        return PatternError([Diagnostic(code, message, span)])

    def unexpected(self, token: Token) -> PatternError:
        """The diagnostic for a token that cannot stand where it does."""
        accepts = accepted(self.run)
        at_end = token.type == "$END"
        what = "the end of the file" if at_end else f"`{token.text}`"
        if at_end and self.end < len(self.source.text):
            what = "the next item"
        message = f"expected {expected(accepts)}, found {what}"
        others: tuple[Label, ...] = ()
        if self.open and "`" in message and token.type in ("$END", "NAME"):
            text = f"this `{self.open[-1].text}` is still open"
            others = (Label(self.open[-1].span, text),)
        label = "" if at_end else "not expected here"
        found = Diagnostic("syntax", message, self.visible(token), label, "", others)
        return PatternError([found])

    def visible(self, token: Token) -> Span:
        """The token's place; for the end, just after the last thing written."""
        if token.type != "$END":
            return token.span
        at = self.start + len(self.source.text[self.start : self.end].rstrip())
        return Span(self.source, at, at)

    def bad_character(self, at: int) -> PatternError:
        """The diagnostic for a character that starts no token."""
        char, span = self.source.text[at], Span(self.source, at, at + 1)
        shown = f"`{char}`" if char.isprintable() else "a control character"
        name = unicodedata.name(char, "no name")
        message = f"{shown} (U+{ord(char):04X}, {name}) is no part of the language"
        help_text = _INSTEAD.get(char, "")
        if char.isidentifier():
            help_text = "names are made of A-Z, a-z, 0-9 and `_`"
        found = Diagnostic("syntax", message, span, "", help_text)
        return PatternError([found])


# Lark's parser runs are not typed: these three say what they give.


def lex(run: InteractiveParser) -> Iterator[LarkToken]:
    """The tokens of the text."""
    tokens: Iterator[LarkToken] = run.lexer_thread.lex(run.parser_state)  # type: ignore[no-untyped-call]
    return tokens


def choices(run: InteractiveParser) -> Collection[str]:
    """The terminals that have an entry in the parser's table now."""
    found: Collection[str] = run.choices()  # type: ignore[no-untyped-call]
    return found


def accepted(run: InteractiveParser) -> set[str]:
    """The terminals that could come next."""
    found: set[str] = run.accepts()  # type: ignore[no-untyped-call]
    return found


_OPERAND_START = re.compile(r"[A-Za-z0-9_~(]")

_UNION_OVER = ["UNION", "OVER", "NAME"]

_INSTEAD = {
    "!": "write `~` for a complement and `!=` for unequal",
    "^": "write `(a | b) & ~(a & b)` for the pairs in one of two patterns",
    ";": "no sign ends a clause: start the next one",
}
