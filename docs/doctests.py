"""An extension of griffe for mkdocstrings: examples in docstrings become code blocks on the API page."""

import griffe


class Doctests(griffe.Extension):
    """Put a fence around what runs from ``>>>`` to the next empty line: Markdown takes it for a quotation."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    lines, indent = [], None
    for line in [*text.splitlines(), ""]:
        if indent is None and line.lstrip().startswith(">>>"):
            indent = line[: len(line) - len(line.lstrip())]
            lines += ["", f"{indent}```pycon"]
        elif indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    return "\n".join(lines)
