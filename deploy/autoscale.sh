#!/bin/sh
# An example of an autoscaler: starts hosts for what lies in the broker's queues. They leave by themselves (MAYFLY_IDLE_EXIT).
#
#   MAYFLY_AMQP_URL=... PER_HOST=8 MOST=10 COUNT='command that prints how many hosts there are' \
#   START='command that starts $N more' deploy/autoscale.sh
#
# PER_HOST is how many tasks a host runs at once, MOST how many hosts there may be, PAUSE the seconds between two looks (0: look once).
# A host needs time to come up: have COUNT count those that are about to, and COMING, which prints how many these are; else the same tasks have
# more hosts started at each look.
set -eu
: "${COUNT:?}" "${START:?}" "${PER_HOST:=1}" "${MOST:=10}" "${PAUSE:=30}" "${COMING:=echo 0}"
while :; do
	# "pool queued waiting running per-host hosts", a line a pool; a broker that does not answer is asked again.
	if demand=$(mayfly demand --broker --per-host "$PER_HOST"); then
		needed=$(printf '%s\n' "$demand" | awk 'NR > 1 { sum += $NF } END { print sum + 0 }')
		have=$(sh -c "$COUNT")
		needed=$((needed - $(sh -c "$COMING")))
		N=$((needed < MOST - have ? needed : MOST - have))
		if [ "$N" -gt 0 ]; then
			export N
			sh -c "$START"
		fi
	fi
	[ "$PAUSE" -gt 0 ] || exit 0
	sleep "$PAUSE"
done
