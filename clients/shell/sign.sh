#!/bin/sh
# Submits a signed task to hosts that take no others (MAYFLY_TASK_KEYS=.../keys):
#
#   AMQP_URL=amqp://user:password@broker:5672/ task='{"command": ["echo", "hello"]}' sh sign.sh
#
# The keys are made in the directory in which it runs.
set -eu
umask 077
mkdir -p keys
openssl genpkey -algorithm ed25519 -out alice.pem                 # stays with the producer
openssl pkey -in alice.pem -pubout -out keys/alice.pem            # for the hosts
printf %s "$task" >task.json
signature=$(openssl pkeyutl -sign -rawin -inkey alice.pem -in task.json | base64 -w0)
amqp-publish --url="$AMQP_URL" -e mayfly.tasks -r default -p -C application/json -H "task-signature: ed25519 alice $signature" <task.json
