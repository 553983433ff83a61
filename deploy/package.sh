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

# What people read: the documents, and what they lead to, beside each other as in the sources.
doc() {
	for path; do
		case $path in *_test.go) continue ;; *.sh) mode=755 ;; *) mode=644 ;; esac
		install -D -m "$mode" "$path" "$files/doc/$path"
	done
}
rm -rf "$files/doc"
doc README.md CHANGELOG.md LICENSE api/openapi.json docs/*.md docs/bench.json docs/images/* docs/schema/*
doc clients/go/*.go clients/go/example/*.go clients/java/*.java clients/node/*.js clients/node/*.json clients/python/*.py clients/shell/*.sh
doc deploy/autoscale.sh deploy/compose.yaml deploy/mayfly.env deploy/mayfly.service deploy/vulnerabilities.txt deploy/tools/go.mod deploy/kubernetes/* deploy/rabbitmq/* \
	deploy/prometheus/alerts.yml deploy/prometheus/prometheus.yml deploy/grafana/*.json deploy/grafana/provisioning/*/*
find "$files/doc" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} + # nfpm takes the times of directories
for kind in deb rpm; do
	$TOOL nfpm package --config deploy/nfpm.yaml --packager $kind --target "$DIST/"
done
(cd "$DIST" && sha256sum -- *.deb *.rpm >SHA256SUMS)
