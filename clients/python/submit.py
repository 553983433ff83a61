#!/usr/bin/env python3
"""Submits a task to Mayfly and waits for its result, then submits a long one and cancels it.

Needs pika (apt-get install python3-pika, or pip install pika), and RabbitMQ's URL in AMQP_URL."""
import json
import os
import time
import uuid

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()  # from here on, basic_publish returns when the broker has stored the message

# A queue of our own for results. It outlives the connection, so that nothing is lost while we reconnect, and the broker
# removes it an hour after its last consumer.
replies = "my-app.replies." + uuid.uuid4().hex
channel.queue_declare(replies, durable=True, arguments={"x-queue-type": "quorum", "x-expires": 3600 * 1000})


def submit(task):
    properties = pika.BasicProperties(
        delivery_mode=2,  # kept on disk
        message_id=task["id"],
        timestamp=int(time.time()),  # a cancellation is for tasks that are older than it
        reply_to=replies,
        correlation_id=task["id"],  # comes back with the result
    )
    # mandatory: raises UnroutableError where no queue takes the task, since no host has ever served the pool.
    channel.basic_publish("mayfly.tasks", "default", json.dumps(task), properties, mandatory=True)


def wait(task_id):
    for method, properties, body in channel.consume(replies):
        channel.basic_ack(method.delivery_tag)
        if properties.correlation_id == task_id:
            return json.loads(body)


def cancel(task_id):
    channel.basic_publish("mayfly.control", "cancel", json.dumps({"cancel": task_id}), mandatory=True)


task = {
    "id": "python-" + uuid.uuid4().hex,
    "command": ["python3", "-c", "print('hello from python')"],
    "resources": {"cpu": 1, "memory": "256MB"},
    "timeout": "1m",
}
submit(task)
result = wait(task["id"])
print(result["state"], result["exit_code"])
print(result["stdout_tail"], end="")

long = {"id": "python-" + uuid.uuid4().hex, "command": ["sleep", "600"]}
submit(long)
cancel(long["id"])
print(wait(long["id"])["state"])

channel.queue_delete(replies)
connection.close()
