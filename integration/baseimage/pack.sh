#!/bin/sh
# Writes an archive of packages that are installed here, with all that they depend on, and of folders, as an image's root file system.
#
# usage: pack.sh {PACKAGE | /FOLDER:/PLACE}...
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for part; do
	case $part in
	/*) echo "$part" >>"$work/folders" ;;
	*) echo "$part" >>"$work/packages" ;;
	esac
done

# What is virtual is no package; dpkg says so, and lists the others.
xargs apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances <"$work/packages" |
	sed -n 's/^\([a-z0-9][^ <>]*\)$/\1/p' | sort -u >"$work/closure"
# The files as they lie: /bin and the like are links to what is below /usr.
xargs dpkg -L <"$work/closure" 2>/dev/null | sed -E 's,^/(bin|sbin|lib|lib32|lib64|libx32)/,/usr/\1/,' |
	grep -vE '^/(\.|usr/share/(doc|info|locale|man)/.*)$' >"$work/named"
# Of these, what there is, and what no package names.
{
	cat "$work/named"
	printf '%s\n' /bin /sbin /lib /lib64 /tmp /var/tmp /etc/passwd /etc/group /etc/ssl/certs/ca-certificates.crt
} | sort -u | while read -r path; do
	if [ -e "$path" ] || [ -L "$path" ]; then echo ".$path"; fi
done >"$work/files"

tar -C / --no-recursion -T "$work/files" -cf "$work/archive"
[ ! -e "$work/folders" ] || while IFS=: read -r from to; do
	tar -C "$from" --exclude=./test --exclude=./doc --transform="flags=r;s,^\.,.$to," -rf "$work/archive" .
done <"$work/folders"
cat "$work/archive"
