#!/bin/sh
# Prints the licence of Mayfly, and those of all modules that its binary is made of: they ask to go with it.
set -eu
go=${GO:-go}

cat LICENSE
printf '\n\nThe binary contains these modules, and parts of the Go standard library:\n'
{
	echo "go $($go env GOROOT)"
	$go list -deps -tags netgo,osusergo -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' . | LC_ALL=C sort -u
} | while read -r module dir; do
	[ -n "$module" ] || continue
	files=$(find "$dir" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\)[^/]*' | LC_ALL=C sort)
	[ -n "$files" ] || { echo "cannot find the licence of $module in $dir" >&2; exit 1; }
	for file in $files; do
		printf '\n---- %s: %s\n\n' "$module" "${file##*/}"
		cat "$file"
	done
done
