// Package rabbit keeps the queue in RabbitMQ, 3.10 to 4.x.
//
// # Theory of operation
//
// A [Client] holds two connections, each a [link]: one to receive (consumers, dead letters, control), one to publish,
// since a broker that is short of memory stops reading from connections that publish. A link makes new connections and
// channels after each loss and never repairs old ones: an acknowledgement names a channel's own tag, and on another
// channel the same tag is another message. Every delivery therefore keeps the channel object that it came by.
//
// The publisher pipelines: many goroutines publish on one channel in confirm mode and each waits for its own confirms. A
// confirm that never came (the channel died) is unknown, so the message is published again: at least once.
//
// The source has a lane for each pool and band. A lane fetches by lines: channels with one consumer each, whose prefetches
// add up to what the broker may hand over. The lanes together may fetch more than the demand; one regulator gives surplus
// back, lowest band first, and makes lanes wider and narrower by opening and retiring lines. A retired line has no
// consumer and lives until what came by it is settled. A closed channel loses the deliveries of its own line only, and
// lines that hold something are replaced every minute: a task that outlasts the broker's acknowledgement timeout costs
// the host only what it took within the same minute.
//
// Nothing but the queue type is set on shared queues, so that operators' policies rule; the wait queues are the exception,
// because without their time to live they would be no wait queues, and AMQP cannot set policies.
package rabbit
