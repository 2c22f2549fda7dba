"""Write what CI installs, with the sha256 of every file: python .ci/lock.py

The versions are those of constraints.txt, the files those that pip takes on this machine; they are listed in a
file named after the platform and Python, such as .ci/linux-x86_64-cp311.txt. CI installs from it with
--require-hashes, so that a file that was exchanged in an index is not installed. Run it again where
constraints.txt has changed.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILDING = "setuptools>=77"


def place() -> Path:
    """The file for this platform and Python."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return HERE / f"{platform.system().lower()}-{platform.machine()}-{python}.txt"


def resolved() -> list[dict]:
    """What pip would install into an empty environment, from its own report."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    wanted = ["--constraint", str(HERE.parent / "constraints.txt"), f"{HERE.parent}[test]", BUILDING]
    run = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *wanted], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout)["install"]


def locked(installed: list[dict]) -> str:
    """The lines of the file; of everything but this program itself."""
    lines = ["# Written by .ci/lock.py from constraints.txt: what CI installs, with the sha256 of every file."]
    for item in sorted(installed, key=lambda item: item["metadata"]["name"].lower()):
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if "dir_info" in item["download_info"]:
            continue
        if sha256 is None:
            sys.exit(f"{item['metadata']['name']} has no sha256 in pip's report: pip install --upgrade pip")
        lines.append(f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{sha256}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    place().write_text(locked(resolved()))
    print(place())
