#!/bin/sh
# Makes the packages twice from the same sources, in two places, with another umask and time zone, and the second time without what Go has
# cached, and compares them. `make reproducible` runs it.
set -eu
go=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$work/one" "$work/other"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - 2>/dev/null | tar -xf - -C "$work/one"
cp -a "$work/one" "$work/other/place"
make -s -C "$work/one" packages
# The tools are not what is tested.
tool="env GOCACHE=$($go env GOCACHE) $go tool -modfile=deploy/tools/go.mod"
(umask 027 && TZ=Asia/Tokyo GOCACHE=$work/cache make -s -C "$work/other/place" packages TOOL="$tool")
if ! cmp -s "$work/one/dist/SHA256SUMS" "$work/other/place/dist/SHA256SUMS"; then
	echo "not the same:" >&2
	cat "$work/one/dist/SHA256SUMS" "$work/other/place/dist/SHA256SUMS" >&2
	exit 1
fi
cat "$work/one/dist/SHA256SUMS"
