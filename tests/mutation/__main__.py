"""``python -m tests.mutation``: change formulas and conditions one at a time, and see whether a test fails.

mutmut makes the mutants, in ``mutants/``, and finds which tests run each function. It would test all of them, which
takes hours. Here a sample of each area is tested, drawn with a fixed seed, the areas in turn, so that a run can be
ended at any time, and continued: results are kept in ``mutants/sample.json``. ``--again`` tests those again that no
test noticed, after tests were added. ``[tool.mutmut]`` in pyproject.toml has the settings.
"""

import argparse
import gc
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

AREAS = {
    "assembly": ("deop.labelling.assembly",),
    "metrics": ("deop.evaluation.metrics",),
    "vocabulary": ("deop.text.vocabulary",),
    "severance": ("deop.severance", "deop.encoders.severance"),
    "manifest": ("deop.batch.job", "deop.batch.plan"),
}
"""The modules that are changed, by area."""

SECONDS = 120
"""Time of the processor after which a mutant counts as noticed: it does not end."""


def generate() -> None:
    """Write the mutants, and find the tests of each function, unless that was done before."""
    from mutmut.__main__ import (
        collect_or_load_stats,
        copy_also_copy_files,
        copy_src_dir,
        create_mutants,
        get_mutant_runner,
        set_mutant_under_test,
        setup_source_paths,
    )

    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
    runner = get_mutant_runner(1)
    collect_or_load_stats(runner, mutants_caught_by_type_checker={}, apply_config_invalidation=True)
    runner.shutdown()


def mutants_of(area: str, folder: Path = Path("mutants")) -> list[str]:
    """The names of the mutants of an area."""
    names: list[str] = []
    for module in AREAS[area]:
        meta = (folder / "src").joinpath(*module.split(".")).with_suffix(".py.meta")
        names += json.loads(meta.read_text())["exit_code_by_key"]
    return sorted(names)


def sample(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of area and mutant, the areas in turn."""
    drawn = {}
    for area in AREAS:
        names = mutants_of(area)
        drawn[area] = random.Random(seed).sample(names, min(count, len(names)))
    return [(area, drawn[area][k]) for k in range(count) for area in AREAS if k < len(drawn[area])]


class Measurement:
    """A plugin of pytest: once tests are collected, the loop over them runs for each mutant, each time in a fork.

    Args:
        options: of the command.
        chosen: pairs of area and mutant.
        stats: function -> its tests.
        seconds: test -> its time, so that quick tests run first.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        chosen: list[tuple[str, str]],
        stats: dict[str, list[str]],
        seconds: dict[str, float],
    ) -> None:
        self._options, self._chosen, self._stats, self._seconds = options, chosen, stats, seconds
        self._file = Path("sample.json").absolute()
        self.results: dict[str, bool] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.forked = False

    def _passes(self, session: pytest.Session, mutant: str, functions: set[str]) -> bool | None:
        """Whether all tests of some functions pass with a mutant ("": with none); None in the fork, which tests it."""
        names = {name for function in functions for name in self._stats.get(function, [])}
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1] == 0
        self.forked = True
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(15 * SECONDS)  # for one that waits without using the processor
        os.environ["MUTANT_UNDER_TEST"] = mutant
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        session.items[:] = [item for item in session.items if item.nodeid in names]
        session.items.sort(key=lambda item: self._seconds.get(item.nodeid, 0.0))
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Test the mutants; None, in a fork, lets pytest run the chosen tests."""
        gc.freeze()  # forks share the memory of what is imported
        for area in self._options.areas:
            functions = {mutant.rpartition("__mutmut_")[0] for mutant in mutants_of(area, Path())}
            passes = self._passes(session, "", functions)
            if passes is None:
                return None
            if not passes:
                raise pytest.UsageError(f"the tests of {area} fail without a mutant, in mutants/")
        done = {mutant for mutant, noticed in self.results.items() if noticed or not self._options.again}
        end = time.monotonic() + self._options.seconds
        for area, mutant in self._chosen:
            if mutant in done or time.monotonic() > end:
                continue
            function = mutant.rpartition("__mutmut_")[0]
            tested = bool(self._stats.get(function))
            passes = self._passes(session, mutant, {function}) if tested else True
            if passes is None:
                return None
            self.results[mutant] = not passes
            self._file.write_text(json.dumps(self.results, indent=1))
            said = "noticed" if not passes else "NOT NOTICED" if tested else "NO TEST"
            print(f"{area}: {mutant}: {said}", flush=True)
        return True


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=60, help="mutants of each area (60); more than there are: all")
    parser.add_argument("--seed", type=int, default=18, help="of the sample (18)")
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS), help="of these areas only")
    parser.add_argument("--again", action="store_true", help="also those that were tried before and not noticed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"  # tests/conftest.py then leaves torch one thread, which can be forked
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # the tests are those beside the mutants, and this package is already imported
    generate()
    chosen = [pair for pair in sample(options.sample, options.seed) if pair[0] in options.areas]
    os.chdir("mutants")
    measured = json.loads(Path("mutmut-stats.json").read_text())
    stats, seconds = measured["tests_by_mangled_function_name"], measured["duration_by_test"]
    sys.path[:0] = [str(Path("src").absolute()), str(Path.cwd())]
    os.environ["MUTANT_UNDER_TEST"] = ""

    # The examples are the same in each run, and a failing one is not made smaller: that it fails is enough.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutation")
    measurement = Measurement(options, chosen, stats, seconds)
    files = sorted({test.partition("::")[0] for tests in stats.values() for test in tests})
    code = pytest.main(
        ["-x", "-qq", "-s", "--tb=no", "--rootdir=.", "-p", "no:cacheprovider", *files], plugins=[measurement]
    )
    if measurement.forked:
        os._exit(code)
    results = measurement.results
    tried = Counter(area for area, mutant in chosen if mutant in results)
    noticed = Counter(area for area, mutant in chosen if results.get(mutant))
    for area in AREAS:
        share = noticed[area] / max(1, tried[area])
        total = len(mutants_of(area, Path()))
        print(f"{area}: {noticed[area]} of {tried[area]} noticed ({share:.0%}), of {total} mutants")


if __name__ == "__main__":
    main()
