"""``python -m benchmarks [--quick] [--case NAME]... [--json FILE]``.

Needs nginx and wrk (``apt-get install nginx-light wrk``) and the package with
its dependencies. Takes under 5 minutes with ``--quick``, under 20 without.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks.bench import Bench, Result
from benchmarks.cases import CASES, TUNNEL_ONLY, run
from benchmarks.processes import Missing, Programs
from benchmarks.report import row, save, text

# Seconds. After the first no further case starts; after the second all ends.
QUICK = (270, 295)
FULL = (1080, 1190)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, 3 pairs instead of 5")
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="only this one; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    parser.add_argument(
        "--nginx-only", action="store_true", help="only the yardstick, to try the machine"
    )
    return parser.parse_args()


class OutOfTime(BaseException):
    """The run has taken so long that it ends here."""


def stop(number: int, frame: FrameType | None) -> None:
    """A signal ends the run through the ``with`` blocks, so that nothing stays behind."""
    raise OutOfTime if number == signal.SIGALRM else SystemExit(130)


def measure(options: argparse.Namespace) -> list[Result]:
    """Run the cases one after the other, telling each row as it is known."""
    begin = time.monotonic()
    soft, hard = QUICK if options.quick else FULL
    signal.alarm(hard)
    results: list[Result] = []
    name = "start"
    try:
        with Programs() as programs:
            bench = Bench(programs, options.quick, begin + soft)
            if not options.nginx_only:
                bench.start()
            for name in options.case or CASES:
                if bench.ours is None and name in TUNNEL_ONLY:
                    continue
                for result in run(bench, name):
                    results.append(result)
                    print("  ".join(cell for cell in row(result) if cell), flush=True)
            signal.alarm(0)
    except OutOfTime:
        results.append(Result(name, name, "", note="broken off: out of time"))
    return results


def main() -> int:
    options = arguments()
    # A shell's background jobs begin with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, stop)
    lacking = [name for name in ("nginx", "wrk") if not shutil.which(name)]
    if lacking:
        print(f"{' and '.join(lacking)} missing: apt-get install nginx-light wrk", file=sys.stderr)
        return 1
    begin = time.monotonic()
    try:
        results = measure(options)
    except Missing as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    seconds = time.monotonic() - begin
    print(f"\n{text(results)}\n\n{seconds:.0f} s")
    if options.json:
        save(options.json, results, options.quick, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
