package manager

import (
	"strings"
	"testing"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

// TestQuarantine has a worker leave something that does not die: its share of the host stays lent until that is gone.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := newDelivery(message), newDelivery(queue.Message{MessageID: "u", Body: []byte(`{"command": ["true"]}`)})
	b.source.deliveries <- first
	b.until("the first runs", func() bool { return b.ran("t.1") == 1 })
	b.source.deliveries <- second
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone, Left: "processes [7] do not die"}
	if v := b.verdict(first); v.Result.State != queue.Succeeded {
		t.Errorf("%+v", v.Result)
	}
	b.until("the first is settled, and the second waits", func() bool {
		info, err := b.Info(t.Context())
		return err == nil && info.Running+info.Settling == 0 && info.Waiting == 1 && info.CPUUsed == 1 &&
			len(info.Quarantined) == 1 && strings.Contains(info.Quarantined[0], "t.1 (1 core): processes [7] do not die")
	})
	if b.ran("u.1") != 0 {
		t.Error("the second runs on what the first still has")
	}
	b.Freed("t.1")
	b.until("the second runs", func() bool { return b.ran("u.1") == 1 })
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone}
	b.verdict(second)
	if info, _ := b.Info(t.Context()); len(info.Quarantined) != 0 {
		t.Errorf("quarantined: %v", info.Quarantined)
	}
}

// TestFreedEarly hears that nothing is left before the end itself.
func TestFreedEarly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := newDelivery(message)
	b.source.deliveries <- d
	b.until("it runs", func() bool { return b.ran("t.1") == 1 })
	b.Freed("t.1")
	b.runner.ended <- worker.Outcome{Cause: queue.CauseNone, Left: "processes [7] do not die"}
	b.verdict(d)
	b.until("all is free", func() bool {
		info, err := b.Info(t.Context())
		return err == nil && info.CPUUsed == 0 && len(info.Quarantined) == 0
	})
}
