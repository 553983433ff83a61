#!/bin/sh
# Makes the packages of the binary DIST/files/mayfly; `make packages` runs it, with GO, TOOL, VERSION, DIST and SOURCE_DATE_EPOCH set. The
# same sources make the same bytes: all times are SOURCE_DATE_EPOCH, all modes and names are given.
set -eu
umask 022
files=$DIST/files

PACKAGE_VERSION=$(deploy/version.sh "$VERSION")
PACKAGE_ARCH=$($GO env GOARCH)
# The oldest C library that has all that the binary asks for.
GLIBC=$(objdump -T "$files/mayfly" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' | LC_ALL=C sort -V | tail -1)
[ -n "$GLIBC" ] || { echo "cannot find the C library's version that $files/mayfly needs" >&2; exit 1; }
export PACKAGE_VERSION PACKAGE_ARCH GLIBC DIST

for shell in bash zsh fish; do
	"$files/mayfly" completion $shell >"$files/completion.$shell"
done
deploy/licences.sh >"$files/copyright"
for kind in deb rpm; do
	$TOOL nfpm package --config deploy/nfpm.yaml --packager $kind --target "$DIST/"
done
(cd "$DIST" && sha256sum -- *.deb *.rpm >SHA256SUMS)
