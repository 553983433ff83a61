#!/bin/sh
# Prints the version of a package, which must sort, for what "git describe" says: v1.2.3 is 1.2.3, a candidate v1.2.3-rc.1 comes before it
# (1.2.3~rc.1), what is five commits later after it (1.2.3+5.gabcdef0), and what was never tagged before all of them, by its date.
set -eu

case $1 in
v[0-9]*) echo "$1" | sed 's/^v//; s/-dirty$/+dirty/; s/-\([0-9]*\)-g\([0-9a-f]*\)/+\1.g\2/; s/-/~/g' ;;
*) echo "0.0.0+$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y%m%d%H%M%S).g$1" | sed 's/-/+/g' ;;
esac
