"""Write docs/licences.md, the licences of everything in constraints.txt: python .ci/licences.py [--check]

In an environment with all of it (CONTRIBUTING.md). With --check nothing is written, and the exit code is 1 where a
package has a licence that is not one of ``KNOWN``, or the page is of other packages or versions.
"""

import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
KNOWN = ("Apache", "BSD", "MIT", "MPL", "HPND", "PSF", "Python Software Foundation", "ISC", "CC0", "Zlib")
"""Parts of names of licences under which a program under Apache-2.0 may use a library as it is."""
HEAD = """# Licences

jaxsnn is under Apache-2.0, whose text is in `LICENSE`. None of these packages is
copied into it; pip installs them. The table is written by `python .ci/licences.py` from what the packages say of
themselves; CI checks it with `--check`.

| package | version | licence |
| --- | --- | --- |
"""


def pinned() -> list[tuple[str, str]]:
    """Names and versions in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [(name, version) for name, mark, version in (line.partition("==") for line in lines) if mark]


def licence(found: Distribution) -> str:
    """What a package says of its licence: the SPDX expression, else the classifiers, else the first line."""
    told = found.metadata
    if told.get("License-Expression"):
        return told["License-Expression"]
    classes = [c.split(" :: ")[-1] for c in told.get_all("Classifier") or () if c.startswith("License :: ")]
    named = [c for c in classes if c != "OSI Approved"]
    if named:
        return ", ".join(named)
    text = (told.get("License") or "").strip()
    if text:
        return text.splitlines()[0].strip()[:60]
    for file in found.files or ():
        if re.fullmatch(r"(LICEN[CS]E|COPYING)(\..+)?", file.name):
            return next((line.strip() for line in file.read_text().splitlines() if line.strip()), "")[:60]
    return "not said"


def page() -> tuple[str, list[str]]:
    """The page, and a sentence for each package whose licence is not known here."""
    rows, odd = [], []
    for name, version in pinned():
        found = licence(distribution(name))
        rows.append(f"| {name} | {version} | {found} |")
        if not any(known in found for known in KNOWN):
            odd.append(f"{name} {version} is under {found!r}, which .ci/licences.py does not know")
    return HEAD + "\n".join(rows) + "\n", odd


if __name__ == "__main__":
    text, odd = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
        print(PAGE)
    elif text != PAGE.read_text():
        odd.append("docs/licences.md is not what constraints.txt gives: python .ci/licences.py")
    if odd:
        sys.exit("\n".join(odd))
