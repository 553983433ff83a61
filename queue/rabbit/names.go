package rabbit

import (
	"strconv"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
	"github.com/mayfly/mayfly/queue"
)

// Exchanges and queues, as the design fixes them.
const (
	tasksExchange   = "mayfly.tasks"
	resultsExchange = "mayfly.results"
	eventsExchange  = "mayfly.events"
	controlExchange = "mayfly.control"
	cancelStream    = "mayfly.cancels"
	pulseQueue      = "mayfly.pulse"
	dead            = "mayfly.dead" // a fanout exchange and its queue
	poolPrefix      = "mayfly.pool."
	waitPrefix      = "mayfly.wait."
	cancelKey       = "cancel"
	helloPrefix     = "hello." // and a pool: to all of its hosts
	pulseKey        = "pulse"
	askPrefix       = "ask."         // and a pool: to all of its hosts; with a dot and digits behind it, to a part of them
	ownerPrefix     = "owner."       // and a message's fingerprint: to the host that owns it
	toHostPrefix    = "host."        // and a host: to that one
	hostPrefix      = "mayfly.host." // and a host: its own queues

	// Types of control messages.
	questionType = "mayfly.question"
	offerType    = "mayfly.offer"
	helloType    = "mayfly.hello"
)

// Attribute keys of the log lines.
const (
	keyTask  = logkey.Task
	keyPool  = logkey.Pool
	keyHost  = logkey.Host
	keyErr   = logkey.Err
	keyQueue = logkey.Queue
	keyUser  = "user"
)

// poolQueue names the queue of a pool's band.
func poolQueue(pool string, band queue.Band) string {
	return poolPrefix + pool + "." + string(band)
}

// routingKey is the key by which a message reaches a pool's band.
func routingKey(pool string, band queue.Band) string {
	if band == queue.Normal || band == "" {
		return pool
	}
	return pool + "." + string(band)
}

// bindingKeys are the keys that lead to the queue of a pool's band.
func bindingKeys(pool string, band queue.Band) []string {
	if band == queue.Normal {
		return []string{pool, pool + "." + string(queue.Normal)}
	}
	return []string{pool + "." + string(band)}
}

// askKey is the key by which a question reaches a part of a pool.
func askKey(pool, part string) string {
	if part == "" {
		return askPrefix + pool
	}
	return askPrefix + pool + "." + part // a pool's name has no dots
}

// controlQueue names the exclusive queue by which a host hears of control messages; see [ear] for its other names.
func controlQueue(host string) string { return hostPrefix + host + ".control" }

// hostQueue names the queue and the exchange by which a host is handed tasks.
func hostQueue(host string) string { return hostPrefix + host + ".tasks" }

func itoa(d time.Duration) string { return strconv.FormatInt(int64(d), 10) }
