"""``python -m tests.mutation``: change formulas and conditions one at a time, and see whether a test fails.

mutmut makes the mutants, in ``mutants/``, and finds which tests run each function. It would test all of them, which
takes hours. Here a sample of each area is tested, drawn with a fixed seed, the areas in turn, so that a run can be
ended at any time, and continued: results are kept in ``mutants/sample.json``. ``--again`` tests those again that no
test noticed, after tests were added. ``[tool.mutmut]`` in pyproject.toml has the settings.
"""

import argparse
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

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


def is_noticed(mutant: str, tests: list[str]) -> bool:
    """Whether a test fails, in a process that is forked from this one; "" for the mutant: unchanged code."""
    import pytest

    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.environ["MUTANT_UNDER_TEST"] = mutant
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = 1
        try:
            code = int(pytest.main(["-x", "-q", "--rootdir=.", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return status != 0


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=60, help="mutants of each area (60); more than there are: all")
    parser.add_argument("--seed", type=int, default=18, help="of the sample (18)")
    parser.add_argument("--areas", nargs="+", choices=list(AREAS), default=list(AREAS), help="of these areas only")
    parser.add_argument("--again", action="store_true", help="also those that were tried before and not noticed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
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

    import hypothesis
    import pytest

    # The examples are the same in each run, and a failing one is not made smaller: that it fails is enough.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutation")
    pytest.main(["--collect-only", "-qqq", "-p", "no:cacheprovider", *sorted({t for v in stats.values() for t in v})])
    kept = Path("sample.json")
    results: dict[str, bool] = json.loads(kept.read_text()) if kept.exists() else {}
    for area in options.areas:
        names = {mutant.rpartition("__mutmut_")[0] for mutant in mutants_of(area, Path())}
        if is_noticed("", sorted({test for name in names for test in stats.get(name, [])})):
            parser.error(f"the tests of {area} fail without a mutant, in mutants/: no figure would mean anything")
    done = {mutant for mutant, noticed in results.items() if noticed or not options.again}
    for area, mutant in chosen:
        if mutant in done or time.monotonic() > end:
            continue
        tests = sorted(stats.get(mutant.rpartition("__mutmut_")[0], []), key=lambda test: seconds.get(test, 0.0))
        results[mutant] = bool(tests) and is_noticed(mutant, tests)
        kept.write_text(json.dumps(results, indent=1))
        print(
            f"{area}: {mutant}: {'noticed' if results[mutant] else 'NOT NOTICED' if tests else 'NO TEST'}", flush=True
        )
    tried = Counter(area for area, mutant in chosen if mutant in results)
    noticed = Counter(area for area, mutant in chosen if results.get(mutant))
    for area in AREAS:
        share = noticed[area] / max(1, tried[area])
        total = len(mutants_of(area, Path()))
        print(f"{area}: {noticed[area]} of {tried[area]} noticed ({share:.0%}), of {total} mutants")


if __name__ == "__main__":
    main()
