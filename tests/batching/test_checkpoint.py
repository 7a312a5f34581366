"""A search that was killed goes on where it was, and nowhere else."""

import subprocess
import sys
import threading
import types

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate

from skreg import RegularizedNetClassifier
from skreg.batching.checkpoint import fingerprint as _fingerprint

GRID = {"lambda1": [0, 1e-3, 1e-2], "lr": [1e-3, 1e-2]}
FITS = []  # one entry for each fit


class Counted(RegularizedNetClassifier):
    def initialize(self):
        FITS.append(self)
        return super().initialize()


def small(cls=Counted, **params):
    params = {"hidden_layer_sizes": 4, "max_epochs": 1, "random_state": 0} | params
    return cls(**params)


@pytest.fixture
def kept(tmp_path):
    def under_checkpoint(function, *args, **kwargs):
        """Return what the function returns, and the number of fits."""
        FITS.clear()
        with joblib.parallel_config("skreg", checkpoint=tmp_path):
            return function(*args, **kwargs), len(FITS)

    under_checkpoint.files = lambda: sorted(tmp_path.rglob("[!r]*.pickle"))
    return under_checkpoint


def search(iris, grid=GRID, net=None, cv=3, refit=False, **params):
    net = small() if net is None else net
    return GridSearchCV(net, grid, cv=cv, refit=refit, **params).fit(*iris).cv_results_


def assert_equal(results, reference, with_times=False):
    for name in reference:
        if "time" not in name or with_times:
            np.testing.assert_array_equal(results[name], reference[name], name)


def test_a_rerun_fits_nothing(iris, kept):
    alone = search(iris)
    first, n_first = kept(search, iris)
    again, n_again = kept(search, iris)
    assert (n_first, n_again, len(kept.files())) == (18, 0, 18)
    assert_equal(first, alone)
    assert_equal(again, first, with_times=True)


def test_data_are_hashed_once(iris, kept, monkeypatch):
    hashed = []

    def spy(hasher, obj):
        hashed.append(obj)
        return original(hasher, obj)

    original = _fingerprint.NumpyHasher.hash
    monkeypatch.setattr(_fingerprint.NumpyHasher, "hash", spy)
    data = [np.repeat(part, 2, axis=0) for part in iris]
    kept(search, data)
    for part in data:
        n_of_data = sum(obj is part for obj in hashed)
        n_of_views = sum(getattr(obj, "base", None) is part for obj in hashed)
        assert n_of_data + n_of_views <= 2  # the argument, and the array in it
    assert sum(obj is data[0] for obj in hashed) >= 1


def test_a_longer_grid_fits_what_is_new(iris, kept):
    kept(search, iris)
    grid = GRID | {"lambda1": [0, 1e-4, 1e-3, 1e-2]}
    longer, n_fits = kept(search, iris, grid)
    assert n_fits == 6
    assert_equal(longer, search(iris, grid))


def test_a_search_that_is_shown_is_the_same_search(iris, kept, capsys):
    callback = pytest.importorskip("sklearn.callback", reason="of scikit-learn 1.9")
    kept(search, iris)
    assert kept(search, iris, verbose=3)[1] == 0

    def shown():
        estimator = GridSearchCV(small(), GRID, cv=3, refit=False)
        estimator.set_callbacks(callback.ProgressBar()).fit(*iris)

    assert kept(shown)[1] == 0


def changed(values):
    values = values.copy()
    values[-1] = values[0]
    return values


CHANGES = {
    "data": lambda X, y: search((changed(X), y)),
    "targets": lambda X, y: search((X, changed(y))),
    "dtype": lambda X, y: search((X.astype(np.float32), y)),
    "split": lambda X, y: search((X, y), cv=KFold(3, shuffle=True, random_state=0)),
    "parameter": lambda X, y: search((X, y), net=small(max_epochs=2)),
    "seed": lambda X, y: search((X, y), net=small(random_state=1)),
    "grid": lambda X, y: search(
        (X, y), {k: [2 * v + 1 for v in GRID[k]] for k in GRID}
    ),
    "scorer": lambda X, y: search((X, y), scoring=make_scorer(hits)),
    "weights": lambda X, y: GridSearchCV(small(), GRID, cv=3, refit=False).fit(
        X, y, sample_weight=1.0 + y
    ),
}


def hits(y, y_pred):
    return (y == y_pred).sum()


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_taken_from_another_search(iris, kept, what):
    kept(search, iris)
    assert kept(CHANGES[what], *iris)[1] == 18


@pytest.mark.parametrize("package", [*_fingerprint._PACKAGES, "skreg"])
def test_nothing_is_taken_from_another_version(iris, kept, package, monkeypatch):
    grid = {"lambda1": [0]}
    kept(search, iris, grid)
    version = _fingerprint.version
    with monkeypatch.context() as patch:
        patch.setattr(
            _fingerprint, "version", lambda p: "99" if p == package else version(p)
        )
        if package == "skreg":
            patch.setattr(_fingerprint, "__version__", "99")
        _fingerprint._versions.cache_clear()
        n_fits = kept(search, iris, grid)[1]
    _fingerprint._versions.cache_clear()
    assert n_fits == 3


SOURCE = """
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial, wraps
from types import SimpleNamespace
import numpy as np
import torch
from torch import nn
SCALE = 1
SIZES = [4, {"more": 2}]
ARRAY, TENSOR, NAMES = np.array([1, 2]), torch.tensor([1, 2]), {"a", "b"}
NAMESPACE = SimpleNamespace(alpha=1)
KIND = Enum("Kind", {"FIRST": 1})
SELF = [8]
SELF.append(SELF)

@dataclass
class Settings:
    beta: float = 1.0

SETTINGS = Settings(beta=5.0)

def one(x):
    return x

def other(x):
    return 2 * x

CHOICE, ADDED = {"act": one}, partial(np.add, 6)

@lru_cache
def remembered():
    return 11

def helper(x):
    objects = ARRAY, TENSOR, NAMES, NAMESPACE, KIND, SELF, SETTINGS, CHOICE, ADDED
    return SCALE * x + len(SIZES) + 0 * len(objects) * remembered()

def decorated(function):
    @wraps(function)
    def wrapper(*args):
        return function(*args) * 1.0
    return wrapper

class Base(nn.Module):
    limit = 3

    def __init_subclass__(cls):
        float("13")

class Net(Base):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, X):
        return self.layer(helper(X))

    @property
    def size(self):
        return sum(i for i in range(3))

@decorated
def function(y, y_pred):
    return helper(1) + (y == y_pred).mean()
"""


def module_of(source, monkeypatch):
    module = types.ModuleType("experiment")
    monkeypatch.setitem(sys.modules, "experiment", module)
    exec(source, vars(module))
    return module


CODE_CHANGES = [
    ("SCALE = 1", "SCALE = 2"),
    ('"more": 2', '"more": 3'),
    ("limit = 3", "limit = 4"),
    ('float("13")', 'float("14")'),
    ("len(SIZES)", "1"),
    ("self.layer(helper(X))", "self.layer(X)"),
    ("range(3)", "range(4)"),
    ("np.array([1, 2])", "np.array([1, 3])"),
    ("torch.tensor([1, 2])", "torch.tensor([1, 3])"),
    ('{"a", "b"}', '{"a", "c"}'),
    ("alpha=1", "alpha=2"),
    ('{"FIRST": 1}', '{"FIRST": 2}'),
    ("SELF = [8]", "SELF = [9]"),
    ("beta=5.0", "beta=6.0"),
    ('{"act": one}', '{"act": other}'),
    ("np.add, 6", "np.add, 7"),
    ("np.add, 6", "np.subtract, 6"),
    ("return 11", "return 12"),
    ("* 1.0", "* 2.0"),
]


@pytest.mark.parametrize(("old", "new"), CODE_CHANGES)
def test_code_of_the_users_own_is_part_of_a_task(iris, kept, monkeypatch, old, new):
    def run(source):
        module = module_of(source, monkeypatch)
        grid = {"module": [module.Net]}
        return search(iris, grid, scoring=make_scorer(module.function))

    assert kept(run, SOURCE)[1] == 3
    assert kept(run, SOURCE + "# with a comment")[1] == 0
    assert kept(run, SOURCE.replace(old, new))[1] == 3


def test_what_a_function_encloses_is_part_of_a_task(iris, kept):
    def factor_times_accuracy(factor):
        return lambda net, X, y: factor * (net.predict(X) == y).mean()

    once, n_once = kept(search, iris, scoring=factor_times_accuracy(1))
    again, n_again = kept(search, iris, scoring=factor_times_accuracy(1))
    twice, n_twice = kept(search, iris, scoring=factor_times_accuracy(2))
    assert (n_once, n_again, n_twice) == (18, 0, 18)
    assert_equal(again, once)
    np.testing.assert_array_equal(twice["mean_test_score"], 2 * once["mean_test_score"])


@pytest.mark.parametrize("damage", [b"", b"rubbish", slice(-1), slice(40), "flip"])
def test_a_damaged_file_is_computed_anew(iris, kept, damage):
    first, _ = kept(search, iris)
    file = kept.files()[7]
    content = file.read_bytes()
    if damage == "flip":
        damaged = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    else:
        damaged = content[damage] if isinstance(damage, slice) else damage
    file.write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"is damaged .* computed anew"):
        again, n_fits = kept(search, iris)
    assert n_fits == 1
    assert_equal(again, first)
    assert kept(search, iris)[1] == 0


def test_fitted_nets_come_back_fitted(iris, kept):
    def fits():
        return cross_validate(small(), *iris, return_estimator=True)["estimator"]

    first, _ = kept(fits)
    again, n_fits = kept(fits)
    assert n_fits == 0
    for net, kept_net in zip(first, again, strict=True):
        assert net is not kept_net
        np.testing.assert_array_equal(
            net.predict_proba(iris[0]), kept_net.predict_proba(iris[0])
        )


def test_other_meta_estimators(iris, kept):
    def bagging():
        ensemble = BaggingClassifier(small(), n_estimators=5, random_state=0)
        return ensemble.fit(*iris).predict_proba(iris[0])

    first, n_first = kept(bagging)
    again, n_again = kept(bagging)
    assert (n_first, n_again) == (5, 0)
    np.testing.assert_array_equal(first, again)


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_fits_that_fail_are_tried_again(iris, kept):
    for n_fits in (6, 3):
        with pytest.warns(FitFailedWarning):
            _, n = kept(search, iris, {"batch_size": [64, 2.5]})
        assert n == n_fits - 3  # bad parameters are found before a net is made
    assert len(kept.files()) == 3


def test_the_same_task_twice_is_two_draws(iris, kept):
    def fits():
        net = small(random_state=None)
        draws = Parallel()(delayed(clone(net).fit)(*iris) for _ in range(3))
        return [draw.predict_proba(iris[0]).ravel() for draw in draws]

    first, n_first = kept(fits)
    again, n_again = kept(fits)
    assert (n_first, n_again) == (3, 0)
    assert len({tuple(draw) for draw in first}) == 3
    np.testing.assert_array_equal(first, again)


def test_fits_of_inner_searches_are_kept(iris, kept):
    def nested():
        inner = GridSearchCV(small(), {"lambda1": [0, 1e-2]}, cv=2)
        return cross_val_score(inner, *iris, cv=3)

    first, n_first = kept(nested)
    assert n_first == 3 * (4 + 1)
    assert len(kept.files()) == 3 + 3 * 4
    outer = [f for f in kept.files() if b"n_test_samples" not in f.read_bytes()]
    assert len(outer) == 3
    for file in outer:  # as if it had been killed before an outer fit ended
        file.unlink()
    again, n_again = kept(nested)
    assert n_again == 3  # the refits
    np.testing.assert_array_equal(first, again)


def test_trees_of_a_forest_in_a_search_are_not_kept(iris, kept):
    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    kept(cross_val_score, forest, *iris, cv=3)
    assert len(kept.files()) == 3


def test_tasks_that_write_into_memory_are_run(kept):
    def task(out):
        out.append(1)

    def run():
        out = []
        Parallel(require="sharedmem")(delayed(task)(out) for _ in range(3))
        return out

    assert kept(run)[0] == [1, 1, 1]
    assert kept(run)[0] == [1, 1, 1]
    assert kept.files() == []


def test_arguments_and_results_that_cannot_be_pickled(kept):
    lock = threading.Lock()
    with pytest.warns(UserWarning, match="A task is not kept"):
        results, _ = kept(lambda: Parallel()([delayed(isinstance)(lock, int)]))
    assert results == [False]
    with pytest.warns(UserWarning, match="A result cannot be kept"):
        (result,), _ = kept(lambda: Parallel()([delayed(threading.Lock)()]))
    assert not result.locked()
    assert kept.files() == []


def test_path_of_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=r"checkpoint='.*file' is a file; give the"):
        joblib.parallel_config("skreg", checkpoint=file)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"checkpoint='.*inside' cannot be made \("):
        joblib.parallel_config("skreg", checkpoint=tmp_path / "file" / "inside")


@pytest.mark.parametrize("path", [5, "", True, b"", ["a"]])
def test_what_is_no_path(path):
    with pytest.raises(ValueError, match=r"checkpoint=.* must be None or the path of"):
        joblib.parallel_config("skreg", checkpoint=path)


KILLED = """
import sys, time
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from skreg import RegularizedNetClassifier

fits = []

class Net(RegularizedNetClassifier):
    def initialize(self):
        fits.append(self)
        if len(fits) > int(sys.argv[2]):
            print("now", flush=True)
            time.sleep(100)
        return super().initialize()

grid = {"lambda1": [0, 1e-3, 1e-2], "lr": [1e-3, 1e-2]}
net = Net(hidden_layer_sizes=4, max_epochs=2, random_state=0)
with joblib.parallel_config("skreg", checkpoint=sys.argv[1], max_in_flight=4):
    search = GridSearchCV(net, grid, cv=3, refit=False).fit(*load_iris(return_X_y=True))
print(len(fits), search.cv_results_["mean_test_score"].tolist())
"""


@pytest.mark.slow
def test_kill_and_run_again(tmp_path, iris):
    command = [sys.executable, "-c", KILLED, tmp_path]
    with subprocess.Popen([*command, "12"], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "now\n"
        first.kill()
    n_kept = len(list(tmp_path.rglob("[!r]*.pickle")))
    assert 8 <= n_kept <= 12  # at most one wave is lost
    second = subprocess.run(
        [*command, "99"], stdout=subprocess.PIPE, text=True, check=True
    )
    n_fits, scores = second.stdout.split(maxsplit=1)
    assert int(n_fits) == 18 - n_kept
    alone = search(iris, net=small(max_epochs=2))
    assert eval(scores) == alone["mean_test_score"].tolist()
    assert not list(tmp_path.rglob("*.part"))
