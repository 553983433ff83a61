#!/bin/sh
# Submits a task to Mayfly and waits for its result, then submits a long one and cancels it.
#
# Needs amqp-tools and jq, and RabbitMQ's URL in AMQP_URL. amqp-publish neither waits for the broker's confirm nor says when no
# queue takes a message: where that matters, use `mayfly submit` on a host, or another language.
set -eu

id=shell-$(date +%s)-$$

# A queue of our own for results. These tools cannot have it expire, so the script removes it.
replies=$(amqp-declare-queue --url="$AMQP_URL" -d -q "my-script.replies.$id")
trap 'amqp-delete-queue --url="$AMQP_URL" -q "$replies" >/dev/null' EXIT

submit() { # reads the task; -p keeps it on disk
	amqp-publish --url="$AMQP_URL" -e mayfly.tasks -r default -p -C application/json -t "$replies"
}

cancel() {
	jq -nc --arg id "$1" '{cancel: $id}' | amqp-publish --url="$AMQP_URL" -e mayfly.control -r cancel
}

jq -nc --arg id "$id" '{$id, command: ["sh", "-c", "echo hello from shell"], resources: {cpu: 1, memory: "256MB"}, timeout: "1m"}' | submit
result=$(amqp-consume --url="$AMQP_URL" -q "$replies" -c 1 cat)
printf '%s\n' "$result" | jq -r '"\(.state) \(.exit_code)"'
printf '%s\n' "$result" | jq -j .stdout_tail

jq -nc --arg id "$id-long" '{$id, command: ["sleep", "600"]}' | submit
# amqp-publish sets no timestamp, so the task is as old as its arrival on a host: cancel until it is.
cancel "$id-long"
until result=$(timeout 2 amqp-consume --url="$AMQP_URL" -q "$replies" -c 1 cat); do
	cancel "$id-long"
done
printf '%s\n' "$result" | jq -r .state
