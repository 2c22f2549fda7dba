"""Ask pip-audit for known vulnerabilities of what constraints.txt pins: python .ci/audit.py

Its answers come from a service on the internet. Where none answers, as on a machine that reaches a mirror alone,
that is said in a sentence and nothing fails. A vulnerability that is known ends with exit code 1.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def verdict(answer: str, complaint: str) -> tuple[str, bool]:
    """What is said of pip-audit's JSON and of its errors, and whether a vulnerability is known."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = complaint.strip().splitlines()[-1][:200] if complaint.strip() else "no answer"
        return f"known vulnerabilities are not checked: no service answers here ({why})", False
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return (
            f"known vulnerabilities are not checked: the service here knows none of {len(packages)} packages",
            False,
        )
    found = [f"{p['name']} {p['version']}: {one['id']}" for p in asked for one in p["vulns"]]
    if found:
        return "known vulnerabilities: " + "; ".join(found), True
    return f"no known vulnerability in {len(asked)} of {len(packages)} packages", False


if __name__ == "__main__":
    options = [
        "-r",
        str(CONSTRAINTS),
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    run = subprocess.run([sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True)
    sentence, known = verdict(run.stdout, run.stderr)
    print(sentence)
    sys.exit(int(known))
