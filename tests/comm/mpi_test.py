#!/usr/bin/env python3
"""Runs mpi_communicator_test or mpi_exchange_test under mpirun: the promises, and what is left when a rank breaks.

Usage: mpi_test.py MPIRUN PROGRAM
"""
import os
import subprocess
import sys
import time

LIMIT_S = 60
# mode, ranks, exit 0?, what stderr must say; a broken group must end long before the timeout of its ranks (60 s)
CASES = {"mpi_communicator_test": [
    ("promises", 1, True, ""),
    ("promises", 2, True, ""),
    ("promises", 3, True, ""),
    ("pieces", 2, True, ""),
    ("pieces", 3, True, ""),
    ("one-byte-shares", 5, True, ""),
    ("throw", 3, False, "rank 1: disk full"),
    ("leave", 3, False, "in barrier: rank 1 has left the group"),
    ("kill", 3, False, "signal 6"),
    ("hang", 3, False, "in barrier: the other ranks did not come within 500 ms"),
], "mpi_exchange_test": [
    ("promises", 2, True, ""),
    ("promises", 3, True, ""),
    ("promises", 5, True, ""),
    ("hang", 3, True, "rank 1: it did not answer in time"),
    ("hang-in-message", 3, True, "rank 1: it did not answer in time"),
    ("kill", 3, False, "signal 6"),
]}


def run(command, **variables):
    # Root, and more ranks than processors, are as good as any here; messages stay within this host.
    environment = os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl": "self,vader",
    } | variables
    begin = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as expired:
        return None, f"no end after {expired.timeout} s: {expired.output}", LIMIT_S
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begin


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    mpirun, program = sys.argv[1:]
    failures = 0

    def judge(name, outcome, succeeds, text):
        nonlocal failures
        code, output, seconds = outcome
        good = code is not None and (code == 0) == succeeds and text in output and seconds < LIMIT_S / 2
        failures += not good
        print(f"{'ok    ' if good else 'FAILED'} {name}: exit {code} after {seconds:.1f} s")
        if not good:
            print(output)

    for mode, ranks, succeeds, text in CASES[os.path.basename(program)]:
        judge(f"{mode} on {ranks}", run([mpirun, "-n", str(ranks), program, mode]), succeeds, text)
    judge("foreign launcher", run([program], PMI_SIZE="2"), False, "announced 2 ranks, MPI found 1")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
