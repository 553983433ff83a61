#!/bin/sh
# Runs govulncheck with the arguments, and fails over what it finds in code that is called, but for what deploy/vulnerabilities.txt knows and
# says why it does no harm. It fails as well over what stands there and is not found any more. `make vulncheck` runs it, with TOOL set.
set -eu
known=$(dirname "$0")/vulnerabilities.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

status=0
$TOOL govulncheck "$@" >"$work/report" || status=$?
case $status in
0 | 3) ;; # nothing, or something
*) cat "$work/report" >&2; echo "cannot look for vulnerabilities: govulncheck ended with $status" >&2; exit 1 ;;
esac
sed -n 's/^Vulnerability #[0-9]*: \(GO-[0-9-]*\)$/\1/p' "$work/report" | sort -u >"$work/found"
sed -n 's/^\(GO-[0-9-]*\) .*/\1/p' "$known" | sort -u >"$work/known"
if [ $status -eq 3 ] && [ ! -s "$work/found" ]; then
	cat "$work/report" >&2
	echo "cannot read what govulncheck says" >&2
	exit 1
fi
new=$(comm -23 "$work/found" "$work/known")
gone=$(comm -13 "$work/found" "$work/known")
if [ -n "$new" ]; then
	cat "$work/report" >&2
	echo "new:" $new >&2
	exit 1
fi
if [ -n "$gone" ]; then
	echo "cannot find any more what $known names: remove it there:" $gone >&2
	exit 1
fi
echo "nothing that does harm; known: $(grep -c . "$work/known" || true)"
