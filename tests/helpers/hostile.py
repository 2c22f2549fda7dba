"""Files that somebody hands over: JSON with other parts, damaged bytes, one sentence, and the memory it took."""

import copy
import tracemalloc

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import data
from jaxsnn.errors import UserError

RELAXED = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


MEGABYTE = 1 << 20


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**9, 2**53, 10**30, -(2**63), 2**31]),
    st.floats(),
    st.sampled_from(["", "0", "../../x", "/etc/passwd", "$\\frac{", "a\x00b", "[bold]", "x" * 300, "\ud800"]),
    st.lists(st.integers(-2, 5), max_size=4),
    st.just([[[[[]]]]]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
"""What may stand in the place of any part of a JSON file."""


DAMAGE = st.tuples(
    st.one_of(st.none(), st.floats(0, 1)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)
)
"""Where a file is cut, and bytes at places in it that are replaced."""


def places(value, path=()):
    """Paths to all parts of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


@st.composite
def mutated(draw, value):
    """A JSON value in which one to three parts are something else, gone, or there twice."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(value) if path] or [()]))
        if not path:
            return copy.deepcopy(draw(JUNK))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "twice"]))
        if kind == "replace":
            parent[path[-1]] = copy.deepcopy(draw(JUNK))
        elif kind == "remove":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
    return value


def damaged(content, damage):
    cut, changes = damage
    content = bytearray(content if cut is None else content[: int(cut * len(content))])
    for place, value in changes:
        if content:
            content[min(int(place * len(content)), len(content) - 1)] = value
    return bytes(content)


def one_sentence(action, *arguments):
    """What ``action`` gives, or None where it refuses in one line."""
    try:
        return action(*arguments)
    except (UserError, data.DataError, OSError) as error:  # the commands show an OSError's text and its file
        assert str(error) and "\n" not in str(error).strip(), repr(str(error))
    return None


def peak(action):
    """The most memory in bytes that Python and NumPy held during ``action``."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
