"""Searches that a benchmark runs once and reads from then on."""

from jaxsnn.errors import UserError
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.run_config import to_record
from jaxsnn.runtime.files import plain, read_json

MOVED = ("weights", "data_dir")
"""Settings that may name other places now; what the files hold is what counts."""


def run_once(job: OptimizeConfig, sha256: str) -> dict:
    """results.json of a search in the folder ``job.out``, which is run where it is not there yet.

    Args:
        sha256: of the file of weights that it must be about.

    Raises:
        UserError: the folder holds a search with other weights or settings.
    """
    out = job.out
    if out is None:
        raise ValueError("a search that is read again needs a folder")
    if not (out / "results.json").exists():
        optimize(job)
    held = read_json(out / "config.json")
    wanted = {k: v for k, v in plain(to_record(job.checked())).items() if k in held and k not in MOVED}
    if held.get("weights_sha256") != sha256 or any(held[key] != value for key, value in wanted.items()):
        raise UserError(f"{out} holds a run with other weights or settings: delete it")
    return read_json(out / "results.json")
