#!/bin/sh
# What Mayfly needs of RabbitMQ, made beforehand, so that hosts and producers get by with the least rights. Run on a node of the broker:
#
#   setup.sh queues POOL...                      the virtual host, exchanges, queues and bindings (definitions.json, and those of the pools); policies
#   setup.sh host NAME POOL...                   a user for the host NAME (MAYFLY_HOST), for MAYFLY_DECLARE=passive; its password on standard input
#   setup.sh producer NAME POOL...               a user that submits to these pools, cancels, and has results sent back to queues that it names
#                                                mayfly.reply.*; its password likewise
#
# VHOST is the virtual host (/), RABBITMQCTL the command. What is there already is left alone; rights are set anew.

# Virtual host, users, rights and policies are not in definitions.json: it would hold passwords, or their hashes, and the names of hosts; rights are by host and pools;
# and the policy's key is known to RabbitMQ from 3.12 on, by another way before. So who imports it by other means (an operator, load_definitions) makes these, too.
set -eu
: "${VHOST:=/}" "${RABBITMQCTL:=rabbitmqctl}"
ctl() { "$RABBITMQCTL" -q "$@" </dev/null; } # else it takes the password, which is for add_user
here=$(cd "$(dirname "$0")" && pwd)
what=${1-}
case $what in host | producer) least=3 ;; *) least=2 ;; esac
[ $# -ge $least ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
shift

# any joins words to a regular expression that matches one of them.
any() { printf '%s\n' "$@" | sed 's/[.]/\\./g' | paste -sd '|' | sed 's/.*/(&)/'; }

# user makes a user, whose password comes on standard input, unless there is one. rabbitmqctl reads it only where it has no other argument.
user() {
	ctl list_users | cut -f 1 | grep -qxF "$1" || "$RABBITMQCTL" add_user "$1" >/dev/null
}

case $what in
queues)
	ctl list_vhosts name --no-table-headers | grep -qxF -e "$VHOST" || ctl add_vhost "$VHOST"
	# The definitions are of the pool "default" in the virtual host "/". rabbitmqctl cannot read them from its standard input; it may be another user's.
	file=$(mktemp)
	trap 'rm -f "$file"' EXIT
	chmod 644 "$file"
	for pool; do
		sed "s/\.pool\.default\./.pool.$pool./g; s/\"routing_key\": \"default/\"routing_key\": \"$pool/g; s|\"vhost\": \"/\"|\"vhost\": \"$VHOST\"|g" \
			"$here/definitions.json" >"$file"
		ctl import_definitions "$file" >/dev/null
	done
	# Acknowledgements may take as long as tasks do: 7 days. The key is known from 3.12; before, it is a matter of rabbitmq.conf.
	version=$(ctl version)
	case $version in
	3.[0-9].* | 3.1[01].*) echo "setup.sh: RabbitMQ $version: set consumer_timeout = 604800000 in rabbitmq.conf where tasks take long" >&2 ;;
	*) ctl set_policy -p "$VHOST" mayfly-timeout '^mayfly\.(pool|host)\.' '{"consumer-timeout": 604800000}' --apply-to queues >/dev/null ;;
	esac
	;;
host)
	name=$1
	shift
	host=$(any "$name")
	pools=$(any "$@")
	user "$name"
	ctl set_permissions -p "$VHOST" "$name" \
		"^mayfly\.host\.$host\.(control(\.[2-9])?|tasks)\$" \
		"^(mayfly\.(tasks|results|events|control|dead|wait\..+)|mayfly\.host\.$host\.control(\.[2-9])?|mayfly\.host\..+\.tasks|amq\.default)\$" \
		"^(mayfly\.(control|cancels|dead|pool\.$pools\.(high|normal|low))|mayfly\.host\.$host\.(control(\.[2-9])?|tasks))\$"
	ctl set_topic_permissions -p "$VHOST" "$name" mayfly.tasks "^$pools(\.(high|normal|low))?\$" '^$'
	;;
producer)
	name=$1
	shift
	pools=$(any "$@")
	user "$name"
	ctl set_permissions -p "$VHOST" "$name" '^mayfly\.reply\..+$' '^mayfly\.(tasks|control|reply\..+)$' '^mayfly\.reply\..+$'
	ctl set_topic_permissions -p "$VHOST" "$name" mayfly.tasks "^$pools(\.(high|normal|low))?\$" '^$'
	ctl set_topic_permissions -p "$VHOST" "$name" mayfly.control '^cancel$' '^$'
	;;
*)
	echo "setup.sh: there is no \"$what\": queues, host or producer" >&2
	exit 2
	;;
esac
