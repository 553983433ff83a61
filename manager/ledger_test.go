package manager

import (
	"reflect"
	"strings"
	"testing"

	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/worker"
)

func TestLedgerPrice(t *testing.T) {
	t.Parallel()
	l := ledger{total: Capacity{MilliCPU: 8000, Memory: 16 << 30, Disk: 100 << 30}, cores: newCorePool(nil), defaultMilliCPU: 1000, defaultPIDs: 100}
	for _, tt := range []struct {
		name string
		in   queue.Resources
		want worker.Lease
	}{
		{"nothing said: a core and its share of memory", queue.Resources{}, worker.Lease{MilliCPU: 1000, Memory: 2 << 30, PIDs: 100}},
		{"a fraction", queue.Resources{CPU: 0.25}, worker.Lease{MilliCPU: 250, Memory: 512 << 20, PIDs: 100}},
		{"decimal fractions stay exact", queue.Resources{CPU: 0.1, Memory: 1}, worker.Lease{MilliCPU: 100, Memory: 1, PIDs: 100}},
		{"never nothing", queue.Resources{CPU: 1e-9, Memory: 1}, worker.Lease{MilliCPU: 1, Memory: 1, PIDs: 100}},
		{"all said", queue.Resources{CPU: 8, Memory: 5, Disk: 7, PIDs: 9}, worker.Lease{MilliCPU: 8000, Memory: 5, Disk: 7, PIDs: 9}},
		{"too many cores ask for no more memory than there is", queue.Resources{CPU: 80}, worker.Lease{MilliCPU: 80000, Memory: 16 << 30, PIDs: 100}},
	} {
		if got := l.price(tt.in); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: price = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestLedgerNeverAndLacks(t *testing.T) {
	t.Parallel()
	l := ledger{total: Capacity{MilliCPU: 2000, Memory: 1000, Disk: 10}, cores: newCorePool(nil), cannot: Cannot{Containers: "runs no containers", NoNetwork: "cannot 1", Disk: "cannot 2"}, defaultMilliCPU: 1000, defaultPIDs: 100}
	for _, tt := range []struct {
		task  queue.Task
		lease worker.Lease
		want  string // the field that the sentence names
	}{
		{queue.Task{}, worker.Lease{MilliCPU: 2000, Memory: 1000, Disk: 10}, ""},
		{queue.Task{}, worker.Lease{MilliCPU: 2001}, "resources.cpu"},
		{queue.Task{}, worker.Lease{Memory: 1001}, "resources.memory"},
		{queue.Task{}, worker.Lease{Disk: 11}, "resources.disk"},
		{queue.Task{Resources: queue.Resources{GPU: 1}}, worker.Lease{}, "resources.gpu"},
		{queue.Task{Image: "x"}, worker.Lease{}, "image is \"x\": this host runs no containers"},
		{queue.Task{Resources: queue.Resources{Network: new(bool)}}, worker.Lease{}, "resources.network is false: this host cannot"},
		{queue.Task{Resources: queue.Resources{Disk: 5}}, worker.Lease{Disk: 5}, "resources.disk is 5B: this host cannot"},
	} {
		c := choice{resources: tt.task.Resources, lease: tt.lease, gpus: requestOf(tt.task.Resources)}
		if got := sentence(l.never(&tt.task, &c)); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("never(%+v) = %q, want it to name %q", tt.lease, got, tt.want)
		}
	}
	l.cannot = Cannot{}
	l.take("x.1", worker.Lease{MilliCPU: 1500, Memory: 600, Disk: 3})
	for _, tt := range []struct {
		lease worker.Lease
		want  string
	}{
		{worker.Lease{MilliCPU: 500, Memory: 400, Disk: 7}, ""},
		{worker.Lease{MilliCPU: 501}, "CPU"},
		{worker.Lease{Memory: 401}, "memory"},
		{worker.Lease{Disk: 8}, "disk"},
	} {
		if got := l.lacks(&choice{lease: tt.lease}); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("lacks(%+v) = %q, want it to name %q", tt.lease, got, tt.want)
		}
	}
	l.giveBack("x.1", worker.Lease{MilliCPU: 1500, Memory: 600, Disk: 3})
	if !reflect.DeepEqual(l.lent, Capacity{}) {
		t.Errorf("lent = %+v after all was given back", l.lent)
	}
}
