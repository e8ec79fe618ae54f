"""Check the words of docstrings, comments, messages and docs against ``words.txt``: run by ``make check``.

A docstring's summary is a verb phrase or the name of the thing, so it must not begin with a question word either.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

# Written by other generators, by other people, a list of the words themselves, or in the syntax of a newer Python.
_SKIPPED = re.compile(
    r"_pb2|sdk/_gen/|benchmarks/gen/|/expected/|^LICENSE$|^tests/prose/|^findings/|\.json$|^constraints\.txt$"
    r"|/pep695_"
)
_TEXTS = {".md", ".jinja", ".proto", ".toml", ".yaml", ".js"}
_QUESTION_WORDS = re.compile(r"(What|Which|Whether|How|Where|Who|Whose|Why|When)\b")
# A comment or a string: no other part of a Python file is prose.
_COMMENT_OR_STRING = re.compile(
    r"#.*"
    r'|"""(?s:[^\\]|\\.)*?"""'
    r"|'''(?s:[^\\]|\\.)*?'''"
    r'|"(?s:[^"\\\n]|\\.)*"'
    r"|'(?s:[^'\\\n]|\\.)*'"
)
# In tests, strings are data. Elsewhere most are messages, help texts or log lines.
_MESSAGES = ("sdk/", "codegen/", "examples/", "protos/")


@dataclass(frozen=True)
class Finding:
    """A word to avoid, and the better ones."""

    path: str
    line: int
    found: str
    better: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}; better: {self.better}"


def read_words() -> list[tuple[re.Pattern[str], str]]:
    """Return the words to avoid, as patterns, each with its better words."""
    lines = (HERE / "words.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return [(re.compile(rf"\b(?:{word})\b(?!-)", re.IGNORECASE), better) for word, better in pairs]


def anywhere(words: list[tuple[re.Pattern[str], str]]) -> re.Pattern[str]:
    """Return a pattern of what may be a finding: most texts have no match, and need not be parsed."""
    found = "|".join(word.pattern for word, _ in words)
    return re.compile(rf"\b(?=\w)(?:{found})|[\"']\\?\s*(?-i:{_QUESTION_WORDS.pattern})", re.IGNORECASE)


def read_exceptions() -> list[tuple[str, str]]:
    """Return the exceptions: a path, and the words that are right there."""
    lines = (HERE / "exceptions.txt").read_text().splitlines()
    return [(path, words) for path, _, words in (line.partition("\t") for line in lines if line and line[0] != "#")]


@lru_cache(maxsize=1)  # both functions below ask for one file, one after the other
def _nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


def prose_of(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the prose of a file, each piece with the number of its first line."""
    if not path.endswith(".py"):
        if path.endswith((".md", ".jinja")):
            yield 1, re.sub(r"`[^`\n]*`", lambda code: " " * len(code.group()), text)
        else:
            for number, line in enumerate(text.splitlines(), 1):
                if comment := re.search(r"(?:#|//)(.*)", line):
                    yield number, comment.group(1)
        return
    with_messages = path.startswith(_MESSAGES)
    strings = {
        (node.lineno, node.col_offset)
        for node in _nodes(text)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    comment, began = "", 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:")):
            began = began or token.start[0]
            comment += token.string.lstrip("#: ") + "\n"
        elif token.type not in (tokenize.NL, tokenize.NEWLINE) and comment:
            yield began, comment
            comment, began = "", 0
        is_docstring = token.type == tokenize.STRING and token.start in strings
        if is_docstring or (with_messages and token.type == tokenize.STRING and " " in token.string):
            yield token.start[0], re.sub(r"``.*?``", lambda code: " " * len(code.group()), token.string)
        elif with_messages and token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            yield token.start[0], token.string


def summaries_of(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the first words of each docstring, with its line."""
    if not path.endswith(".py"):
        return
    for node in _nodes(text):
        is_documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if is_documented and (docstring := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), docstring.splitlines()[0]


def check(path: str, text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[Finding]:
    """Yield the words to avoid of one file."""
    for number, piece in prose_of(path, text):
        for pattern, better in words:
            for match in pattern.finditer(piece):
                line = number + piece.count("\n", 0, match.start())
                yield Finding(path, line, " ".join(match.group().split()), better)
    for number, summary in summaries_of(path, text):
        if _QUESTION_WORDS.match(summary):
            yield Finding(path, number, summary, 'a verb phrase ("Return …") or the name of the thing')


def main(arguments: list[str]) -> int:
    """Print every finding below the given paths, or in the whole repository; returns the exit code."""
    listed = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    words, exceptions = read_words(), read_exceptions()
    possible = anywhere(words)
    findings: list[Finding] = []
    for path in listed.stdout.splitlines():
        suffix = Path(path).suffix
        if (suffix == ".py" or suffix in _TEXTS or path == "Makefile") and not _SKIPPED.search(path):
            text = (ROOT / path).read_text()
            # Only prose counts: code may say `is None`. Parsing is slow, so files whose prose has no word are skipped.
            pieces = "\n".join(_COMMENT_OR_STRING.findall(text)) if suffix == ".py" else text
            if possible.search(pieces):
                findings += check(path, text, words)
    used = Counter((each.path, each.found.lower()) for each in findings)
    findings = [each for each in findings if (each.path, each.found.lower()) not in exceptions]
    for finding in findings:
        print(finding)
    unused = [] if arguments else [pair for pair in exceptions if pair not in used]
    for path, found in unused:
        print(f"tests/prose/exceptions.txt: {path} has no {found!r}: remove the line")
    if findings:
        print(f"{len(findings)} words to avoid")
    return 1 if findings or unused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
