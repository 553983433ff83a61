#!/bin/sh
# Installs what `make bench` compares with: bubblewrap, GNU parallel, Celery and Slurm, and rabbitmq-cli-consumer in the cache. It does only what is
# missing, prints what it does, and is silent when there is nothing to do. No service is started. What cannot be installed is named, and no error:
# the benchmarks say of it that it is missing.
set -eu

cache=${MAYFLY_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mayfly}
# Version 2.3.3 of April 2019, the last one (MIT licence). Its tag is none that Go's modules know, hence the commit.
consumer=github.com/corvus-ch/rabbitmq-cli-consumer@v0.0.0-20190422064029-858d359e9f62

say() { echo "setup-peers: $*" >&2; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

work=$(mktemp -d)
guard=
cleanup() {
	[ -z "$guard" ] || as_root rm -f "$guard"
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

from_apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$work/log" 2>&1; }

missing=
for package in bubblewrap parallel python3-celery munge slurm-wlm; do
	installed "$package" || missing="$missing $package"
done
if [ -n "$missing" ] && ! command -v apt-get >/dev/null; then
	say "cannot install$missing: this script knows Debian and its kin only"
elif [ -n "$missing" ] && [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	say "cannot install$missing without root"
elif [ -n "$missing" ]; then
	say "installing$missing"
	# Debian starts services at installation unless this program says no. One that is there already is not ours to change.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		guard=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >"$work/policy-rc.d"
		as_root install -m 755 "$work/policy-rc.d" "$guard"
	fi
	as_root apt-get update >"$work/log" 2>&1 || :
	# One that there is not must not take the others along.
	# shellcheck disable=SC2086 # a list of words
	from_apt $missing || for package in $missing; do
		from_apt "$package" || { say "cannot install $package"; tail -5 "$work/log" >&2; }
	done
fi

if [ ! -x "$cache/rabbitmq-cli-consumer" ]; then
	say "building $consumer"
	if GOBIN="$work" GOFLAGS= CGO_ENABLED=0 "${GO:-go}" install "$consumer" >"$work/log" 2>&1; then
		as_root mkdir -p "$cache"
		as_root install -m 755 "$work/rabbitmq-cli-consumer" "$cache/rabbitmq-cli-consumer"
	else
		say "cannot build rabbitmq-cli-consumer"
		tail -5 "$work/log" >&2
	fi
fi
