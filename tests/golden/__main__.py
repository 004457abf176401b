"""Compare the models with their golden files, or write these again.

    python -m tests.golden                              # a table: every case and its difference
    python -m tests.golden clip tips                    # only these
    python -m tests.golden --write "why it changed"     # rewrite the files of the cases that differ

Rewrite them only for a change that should change answers, and say in the reason which one: it is stored in the files.
With the kernels of older processors, as far as torch lets one choose:

    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE python -m tests.golden
"""

import argparse
import sys
import warnings

from tests.golden.cases import cases
from tests.golden.files import FOLDER, Difference, compare, file_of, read, to_json
from tests.golden.tolerances import fits, tolerance


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CASE", help="only these cases")
    parser.add_argument("--write", metavar="REASON", help="rewrite the files of the cases that differ")
    arguments = parser.parse_args()
    known = cases()
    if unknown := set(arguments.names) - known.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join(known)}")
    if arguments.write is not None and len(arguments.write.split()) < 3:
        parser.error("say in the reason what changed, in a sentence")
    warnings.simplefilter("ignore")
    print(f"{'case':24}{'equal labels':>13}{'largest difference':>20}  {'of':24}allowed")
    failed = False
    for name in arguments.names or known:
        answer = known[name]()
        difference = compare(read(name), answer) if file_of(name).is_file() else Difference(form="no file yet")
        good = fits(name, difference)
        failed |= not good
        allowed = tolerance(name)
        print(
            (difference.form and f"{name:24}{difference.form}")
            or f"{name:24}{100 * difference.equal:11.1f} %{difference.largest:20.2g}  {difference.where:24}"
            f"{100 * allowed.equal:.1f} %, {allowed.largest:g}",
            "" if good else "DIFFERS", flush=True,
        )  # fmt: skip
        if not good and arguments.write:
            FOLDER.mkdir(exist_ok=True)
            file_of(name).write_text(to_json(answer, arguments.write), encoding="utf-8")
            print(f"{'':24}written")
    return int(failed and not arguments.write)


if __name__ == "__main__":
    sys.exit(main())
