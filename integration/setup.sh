#!/bin/sh
# Installs what the tests need: a C compiler (for the race detector), AMQP clients that are not ours and the languages of the
# examples in clients/ (Python, Node, Java, shell), RabbitMQ 3.10 (the
# distribution's on Debian 12, elsewhere in a Debian tree) and two more Debian trees with newer RabbitMQ (4.0 from Debian 13,
# 4.3 from testing), kept in the cache between runs; a machine emulator with a kernel and systemd for its guests; Docker's
# engine and Compose; what makes packages and looks into them; Prometheus; Chromium, for the dashboard. It does only what is missing, prints what it does, and is silent when
# there is nothing to do. No service is started.
set -eu

cache=${MAYFLY_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mayfly}
mirror=${MAYFLY_TEST_MIRROR:-http://deb.debian.org/debian}
node=$(dirname "$0")/../clients/node

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
has_modules() { cmp -s "$node/package-lock.json" "$cache/node/package-lock.json"; }
has_prometheus() { for p in prometheus promtool; do command -v $p >/dev/null || [ -x "$cache/$p" ] || return 1; done; }
has_tree() { ls -d "$cache/$1"/usr/lib/rabbitmq/lib/rabbitmq_server-* >/dev/null 2>&1; }

missing=
all="debian-13 debian-testing"
packages="gcc libc6-dev debootstrap amqp-tools jq python3-pika librabbitmq-client-java libgoogle-gson-java procps iproute2 nftables e2fsprogs strace
	qemu-system-x86 busybox-static xz-utils zstd linux-image-amd64 systemd dbus docker.io chromium fonts-inter
	make git binutils rpm cpio ca-certificates docker-compose"
[ "$(dpkg --print-architecture)" = amd64 ] || packages=$(printf '%s' "$packages" | sed 's/qemu-system-x86\|linux-image-amd64//g')
# However these were installed, they will do.
command -v javac >/dev/null || packages="$packages default-jdk-headless"
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then packages="$packages nodejs npm"; fi
if grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release 2>/dev/null; then
	packages="$packages rabbitmq-server"
else
	all="debian-12 $all"
fi
for package in $packages; do
	installed "$package" || missing="$missing $package"
done
trees=
for tree in $all; do
	has_tree "$tree" || trees="$trees $tree"
done
if [ -z "$missing$trees" ] && has_prometheus && has_modules; then exit 0; fi

# Both steps need root. The cache stays where the caller has it.
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || die "cannot install without root: run as root: MAYFLY_TEST_CACHE=$cache $0"
	exec sudo MAYFLY_TEST_CACHE="$cache" MAYFLY_TEST_MIRROR="$mirror" "$0"
fi
command -v apt-get >/dev/null || die "cannot install$missing: this script knows Debian and its kin only"

# One at a time; the second finds the work done.
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9

work=$(mktemp -d)
guard=
cleanup() {
	[ -z "$guard" ] || rm -f "$guard"
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

if [ -n "$missing" ]; then
	say "installing$missing"
	# Debian starts services at installation unless this program says no. One that is there already is not ours to change.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		guard=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >"$guard"
		chmod 755 "$guard"
	fi
	# shellcheck disable=SC2086 # a list of words
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$work/log" 2>&1; then
		tail -20 "$work/log" >&2
		die "cannot install$missing"
	fi
	if [ -n "$guard" ]; then
		rm -f "$guard"
		guard=
	fi
fi

# Of the package that has them (19 MB), the two programs are taken: installed, it would bring a service.
if ! has_prometheus; then
	say "fetching prometheus"
	fetch() { (cd "$work" && apt-get download prometheus) >>"$work/log" 2>&1; }
	if ! fetch && ! { apt-get update >>"$work/log" 2>&1 && fetch; }; then
		tail -20 "$work/log" >&2
		die "cannot fetch the package prometheus"
	fi
	dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -xC "$work" ./usr/bin
	mv "$work/usr/bin/promtool" "$work/usr/bin/prometheus" "$cache"
fi

# One module without dependencies (half a megabyte).
if ! has_modules; then
	say "fetching the modules of clients/node"
	rm -rf "$cache/node" "$cache/.node".*
	new=$cache/.node.$$
	mkdir "$new"
	cp "$node/package.json" "$node/package-lock.json" "$new"
	if ! (cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --cache "$work/npm") >"$work/log" 2>&1; then
		tail -20 "$work/log" >&2
		rm -rf "$new"
		die "cannot fetch the modules of clients/node"
	fi
	mv "$new" "$cache/node"
fi

# tree NAME SUITE makes a Debian tree under a temporary name and renames it when it is complete.
tree() {
	has_tree "$1" && return 0
	say "making the tree $cache/$1 (RabbitMQ of Debian $2; a minute or two)"
	rm -rf "$cache/$1" "$cache/.$1".*
	new=$cache/.$1.$$
	script=
	[ -e "/usr/share/debootstrap/scripts/$2" ] || script=/usr/share/debootstrap/scripts/sid
	if ! debootstrap --variant=minbase --include=rabbitmq-server "$2" "$new" "$mirror" $script >"$work/log" 2>&1; then
		tail -20 "$work/log" >&2
		rm -rf "$new"
		die "cannot make the tree $1"
	fi
	rm -rf "$new/var/cache/apt/archives" "$new/var/lib/apt/lists"
	mv "$new" "$cache/$1"
}
case $all in debian-12*) tree debian-12 bookworm ;; esac
tree debian-13 trixie
tree debian-testing forky
