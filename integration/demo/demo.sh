#!/usr/bin/env bash
# A real little workload on the embedded queue of this machine: estimate pi by simulation in 24 tasks, with one task that
# fails once and is tried again, and one that runs into its timeout. Everything lies in a temporary directory; nothing is
# left running. Needs the binary and awk.
#
# usage: demo.sh PATH-OF-MAYFLY
set -euo pipefail
mayfly=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/mayfly-demo.XXXXXX")
export MAYFLY_STATE_DIR=$work/state MAYFLY_SOCKET=$work/mayfly.sock MAYFLY_HOST=demo MAYFLY_LOG_FORMAT=text
unset MAYFLY_AMQP_URL MAYFLY_POOLS MAYFLY_TYPES_DIR MAYFLY_ALLOW

manager=
finish() {
	[ -z "$manager" ] || { kill -TERM "$manager" 2>/dev/null && wait "$manager" || true; }
	rm -rf "$work"
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

say "Starting a manager on its embedded queue (log: $work/log)"
"$mayfly" run 2>"$work/log" &
manager=$!
for _ in $(seq 100); do "$mayfly" info >/dev/null 2>&1 && break; kill -0 "$manager" 2>/dev/null || { cat "$work/log"; exit 1; }; sleep 0.1; done
"$mayfly" info

say "Submitting 26 tasks: 24 simulations, one that fails at first, one that never ends"
# The program travels with each task: a worker has a /tmp of its own, and sees nothing of this one.
simulate='BEGIN { srand(seed); for (i = 0; i < n; i++) { x = rand(); y = rand(); if (x * x + y * y <= 1) hits++ }; print 4 * hits / n }'
{
	for seed in $(seq 1 24); do
		printf '{"id":"pi-%02d","name":"simulate seed %d","command":["awk","-v","seed=%d","-v","n=3000000","%s"],"timeout":"1m","resources":{"cpu":0.5,"memory":"64MiB"}}\n' \
			"$seed" "$seed" "$seed" "$simulate"
	done
	# shellcheck disable=SC2016 # the variable is the worker's
	echo '{"id":"flaky","name":"fails once","shell":"test \"$MAYFLY_ATTEMPT\" -gt 1 || { echo no luck yet >&2; exit 3; }; echo second time lucky","max_attempts":3,"backoff":"1s"}'
	echo '{"id":"endless","name":"runs too long","command":["sleep","1000"],"timeout":"2s","grace":"1s"}'
} >"$work/tasks.jsonl"

set +e
"$mayfly" submit --lines "$work/tasks.jsonl" --wait
status=$?
set -e

say "What became of them"
"$mayfly" ps --ended 100

say "The task that failed at first"
"$mayfly" show flaky

say "The one that ran into its timeout lies with the dead letters, with the reason"
"$mayfly" dead list

say "The estimate"
for seed in $(seq 1 24); do "$mayfly" logs "$(printf 'pi-%02d' "$seed")"; done |
	awk '{ n++; sum += $1; squares += $1 * $1 } END { mean = sum / n; printf "pi is about %.5f +- %.5f (%d tasks)\n", mean, sqrt((squares / n - mean * mean) / (n - 1)), n; exit n != 24 }'

say "Stopping the manager"
kill -TERM "$manager"
wait "$manager"
manager=
for process in /proc/[0-9]*; do
	# What we started has the temporary directory in its arguments or as its working directory.
	if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$work" || [[ $(readlink "$process/cwd" || true) == "$work"* ]]; then
		echo "still running: $(tr '\0' ' ' <"$process/cmdline")"
		exit 1
	fi
done 2>/dev/null
echo "nothing is left running"
# One task was meant to fail: the exit code of submit says so.
test "$status" -eq 1
