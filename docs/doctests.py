"""An extension of griffe for mkdocstrings: examples in docstrings become code blocks on the API page."""

import itertools

import griffe


class Doctests(griffe.Extension):
    """Put a fence around each paragraph that starts with ``>>>``, which Markdown takes for a quotation."""

    def on_instance(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    lines = []
    for blank, paragraph in itertools.groupby(text.splitlines(), lambda line: not line.strip()):
        block = list(paragraph)
        if not blank and block[0].lstrip().startswith(">>>"):
            indent = block[0][: len(block[0]) - len(block[0].lstrip())]
            block = [f"{indent}```pycon", *block, f"{indent}```"]
        lines += block
    return "\n".join(lines)
