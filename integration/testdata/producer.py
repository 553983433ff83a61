"""Publishes a task with pika, waits for its reply, and prints it. usage: producer.py AMQP-URL [direct]

With "direct" the reply comes by RabbitMQ's direct reply-to, else by a queue of our own."""
import json
import sys

import pika

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
direct = len(sys.argv) > 2
replies = "amq.rabbitmq.reply-to" if direct else channel.queue_declare("", exclusive=True).method.queue
if direct:
    next(channel.consume(replies, auto_ack=True, inactivity_timeout=0.01))  # direct reply-to wants its consumer first
else:
    channel.confirm_delivery()
task = {"command": ["python3", "-c", "print(6 * 7); import os; open(os.environ['MAYFLY_RESULT'], 'w').write('{\"answer\": 42}')"]}
channel.basic_publish(
    "mayfly.tasks", "default", json.dumps(task),
    pika.BasicProperties(reply_to=replies, correlation_id="corr-1", delivery_mode=2), mandatory=True)
for _, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=60):
    if body is None:
        sys.exit("no reply came")
    print(json.dumps({"correlation_id": properties.correlation_id, "Body": json.loads(body)}))
    break
connection.close()
