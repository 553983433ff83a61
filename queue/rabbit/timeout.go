package rabbit

import (
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// timedOut reports whether the broker closed a channel because a delivery was not acknowledged in time.
func timedOut(fault *amqp.Error) bool {
	return fault.Code == amqp.PreconditionFailed && strings.Contains(fault.Reason, "timed out") &&
		strings.Contains(fault.Reason, "ack")
}

// remedy says how to raise the broker's acknowledgement timeout. Policies know it from 3.12; before, they refuse the key.
func (s *source) remedy() string {
	if v := s.client.version(); atLeast(v, 3, 12) {
		return `rabbitmqctl set_policy -p ` + shellWord(s.client.receive.dialer.endpoints[0].vhost) + ` --apply-to queues mayfly-timeout '^mayfly\.(pool|host)\.' '{"consumer-timeout": 604800000}' ` +
			"(milliseconds, here 7 days; longer than the longest task; merge it into the policy that already matches these queues, if any)"
	}
	return "set consumer_timeout = 604800000 in rabbitmq.conf (milliseconds, here 7 days; longer than the longest task) and restart the broker"
}

// atLeast compares a version like "4.0.5".
func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(parts[1])
	return a > major || a == major && b >= minor
}
