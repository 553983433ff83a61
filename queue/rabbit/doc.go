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
// The source has a lane for each pool and band: a channel with one consumer whose prefetch bounds what the broker hands
// over. The lanes together may fetch more than the demand; one regulator gives surplus back, lowest band first, and
// makes lanes narrower or wider by consuming anew (a cancelled consumer keeps its unsettled deliveries). A closed channel
// loses the deliveries of its own lane only.
//
// Nothing but the queue type is set on shared queues, so that operators' policies rule; the wait queues are the exception,
// because without their time to live they would be no wait queues, and AMQP cannot set policies.
package rabbit
