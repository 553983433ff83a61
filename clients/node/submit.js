// Submits a task to Mayfly and waits for its result, then submits a long one and cancels it.
//
// Needs `npm install` in this folder, and RabbitMQ's URL in AMQP_URL.
import { randomUUID } from 'node:crypto'
import amqp from 'amqplib'

const connection = await amqp.connect(process.env.AMQP_URL)
const channel = await connection.createConfirmChannel()

// A queue of our own for results. It outlives the connection, so that nothing is lost while we reconnect, and the broker
// removes it an hour after its last consumer.
const replies = `my-app.replies.${randomUUID()}`
await channel.assertQueue(replies, {
  durable: true,
  arguments: { 'x-queue-type': 'quorum', 'x-expires': 3600 * 1000 },
})

const waiting = new Map() // by correlation id: what to call with the result
const { consumerTag } = await channel.consume(replies, (message) => {
  if (message === null) throw new Error('the reply queue was deleted')
  waiting.get(message.properties.correlationId)?.(JSON.parse(message.content.toString()))
  waiting.delete(message.properties.correlationId)
  channel.ack(message)
})

let returned
channel.on('return', (message) => { returned = message })

// Publishes one message at a time, and returns when the broker has stored it. It returns a mandatory message that no queue
// takes before it confirms it.
async function publish(exchange, key, content, properties = {}) {
  returned = undefined
  channel.publish(exchange, key, Buffer.from(JSON.stringify(content)), { ...properties, mandatory: true })
  await channel.waitForConfirms()
  if (returned) throw new Error(`no queue takes ${key} of ${exchange}: no host has ever served the pool`)
}

async function submit(task) {
  const result = new Promise((resolve) => waiting.set(task.id, resolve))
  await publish('mayfly.tasks', 'default', task, {
    persistent: true, // kept on disk
    messageId: task.id,
    timestamp: Math.floor(Date.now() / 1000), // a cancellation is for tasks that are older than it
    replyTo: replies,
    correlationId: task.id, // comes back with the result
  })
  return { id: task.id, result }
}

async function cancel(id) {
  await publish('mayfly.control', 'cancel', { cancel: id })
}

const task = await submit({
  id: `node-${randomUUID()}`,
  command: ['sh', '-c', 'echo hello from node'],
  resources: { cpu: 1, memory: '256MB' },
  timeout: '1m',
})
const result = await task.result
console.log(result.state, result.exit_code)
process.stdout.write(result.stdout_tail)

const long = await submit({ id: `node-${randomUUID()}`, command: ['sleep', '600'] })
await cancel(long.id)
console.log((await long.result).state)

await channel.cancel(consumerTag)
await channel.deleteQueue(replies)
await connection.close()
