"""Hashes of code, which are the same in every process."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from skreg import RegularizedNetClassifier
from skreg.batching.checkpoint.code_hash import code_digest

class First: pass
class Second(First): pass
class Third: pass
def one(x): return x + 1
def two(x): return x + 2
KINDS = {First, Second, Third}
PAIRS = {("one", one), ("two", two), ("lambda", lambda x: x)}
NESTED = {frozenset({First, Third}), frozenset({one, two}), "text", 1}
unused = [object() for _ in range(int(sys.argv[1]))]  # others lie elsewhere in memory

def scorer(net, X, y):
    return len(KINDS) + len(PAIRS) + len(NESTED)

print(code_digest(scorer), code_digest(RegularizedNetClassifier))
"""


def digests(script, seed):
    done = subprocess.run(
        [sys.executable, "-c", script, str(1000 * seed)],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.slow
def test_hashes_of_code_do_not_depend_on_the_order_of_sets():
    """Of a scorer, and of a class of ours, as from a folder on the path."""
    assert len({tuple(digests(SCRIPT, seed)) for seed in range(2)}) == 1


@pytest.mark.slow
def test_they_depend_on_what_a_set_holds():
    changed = SCRIPT.replace("return x + 2", "return x + 3")
    assert digests(changed, 0)[0] != digests(SCRIPT, 0)[0]
    assert digests(changed, 0)[1] == digests(SCRIPT, 0)[1]
