#!/bin/sh
# Tests Mayfly on this machine's NVIDIA GPUs with what `make build-test-gpu` made, as root, and writes the report. It downloads nothing and
# compiles nothing; of the machine it needs the driver, and nvidia-smi for one of its checks. It takes up to eight minutes.
#
# usage: run.sh [REPORT]        (docs/gpu-report.md in a checkout, else gpu-report.md in the current directory)
#
# Without a GPU it says so and succeeds, or fails where MAYFLY_TEST_REQUIRE is 1.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
built=$here
[ -x "$built/realgpu.test" ] || built=$root/build/test-gpu
report=${1:-}
if [ -z "$report" ]; then
	report=$PWD/gpu-report.md
	[ ! -d "$root/docs" ] || [ ! -d "$root/integration/realgpu" ] || report=$root/docs/gpu-report.md
fi

case $report in /*) ;; *) report=$PWD/$report ;; esac

die() {
	echo "test-gpu: $*" >&2
	exit 1
}

gpu=
for path in /dev/nvidia[0-9]* /proc/driver/nvidia/gpus/*; do
	[ ! -e "$path" ] || gpu=$path
done
if [ -z "$gpu" ]; then
	why="this machine has no NVIDIA GPU with a driver (no /dev/nvidia0, nothing in /proc/driver/nvidia/gpus): NOTHING WAS TESTED, and no report was written"
	[ "${MAYFLY_TEST_REQUIRE:-}" != 1 ] || die "FAILED: $why"
	echo "test-gpu: SKIPPED: $why" >&2
	exit 0
fi
for program in mayfly cuda-task realgpu.test; do
	[ -x "$built/$program" ] || die "cannot find $built/$program: run make build-test-gpu where there are Go and a C compiler, and bring the folder build/test-gpu here"
done
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || die "cannot run without root: Mayfly confines workers, and keeps them from GPUs, as root only"
	exec sudo env ${LD_LIBRARY_PATH:+"LD_LIBRARY_PATH=$LD_LIBRARY_PATH"} "$0" "$report"
fi
MAYFLY_TEST_GPU=$built MAYFLY_TEST_GPU_REPORT=$report exec "$built/realgpu.test" -test.v -test.count=1 -test.run '^TestRealGPU$' -test.timeout 9m30s
