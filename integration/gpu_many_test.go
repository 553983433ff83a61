package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/integration/fakegpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// holdGPUs is a worker that notes when it finds that somebody else has its GPU: a GPU's file is locked by who has all of it, and for
// reading by who shares it, in one of the places that its share leaves room for.
const holdGPUs = `
umask 0
cd %s || exit 9
fd=3 # to 9, which is as far as all shells go
for u in $(echo "$CUDA_VISIBLE_DEVICES" | tr , ' '); do
  eval "exec $fd>>own-$u"
  if test "$SHARE" = 1; then
    flock -s -n $fd || echo "$MAYFLY_TASK_ID.$MAYFLY_ATTEMPT: $u is somebody else's" >>violations
    fd=$((fd+1)); eval "exec $fd>>place-1-$u"
    flock -n $fd || { eval "exec $fd>>place-2-$u"; flock -n $fd || echo "$MAYFLY_TASK_ID.$MAYFLY_ATTEMPT: $u has no room" >>violations; }
  else
    flock -n $fd || echo "$MAYFLY_TASK_ID.$MAYFLY_ATTEMPT: $u is somebody else's" >>violations
  fi
  fd=$((fd+1))
done
sleep 0.0$(($$ %% 9))
exit $FAIL
`

// TestManyGPUTasks runs a thousand tasks with GPUs, shares and instances while GPUs fail and recover, the helper is killed and hangs, and
// the manager is killed: no GPU ever has two owners, none is used while it is in quarantine, and all are free in the end.
func TestManyGPUTasks(t *testing.T) {
	t.Parallel()
	h := newGPUHost(t, "MAYFLY_GPU_SHARING=memory", "MAYFLY_LOG_LEVEL=info", "MAYFLY_WINDOW=64", "MAYFLY_BACKOFF=1ms")
	h.fake.EnableMIG(7, "1g.10gb", "1g.10gb", "2g.20gb")
	h.start()
	random := rand.New(rand.NewPCG(4, 2)) //nolint:gosec // the same each time
	const count = 1000
	script := fmt.Sprintf(holdGPUs, h.marks())
	want := map[string]queue.Cause{}
	var lines strings.Builder
	for i := range count {
		r := resources{"cpu": 0.1, "memory": "16MiB"}
		share := "0"
		switch random.IntN(10) {
		case 0, 1, 2, 3:
			r["gpu"] = 1
		case 4, 5:
			r["gpu"] = 2
		case 6:
			r["gpu"] = 4
		case 7:
			r["gpu"] = 7
		case 8:
			r["gpu_memory"], share = "35GiB", "1"
		case 9:
			r["gpu_model"] = "1g.10gb"
		}
		id, fail := fmt.Sprintf("g%04d", i), "0"
		want[id] = queue.CauseNone
		if random.IntN(5) == 0 {
			want[id], fail = queue.CauseExit, "1"
		}
		fmt.Fprintln(&lines, task(id, r, script, resources{"command": nil, "shell": script, "max_attempts": 2,
			"environment": map[string]string{"SHARE": share, "FAIL": fail}}))
	}
	if _, stderr, code := h.mayfly(lines.String(), "submit", "--quiet", "--lines", "-"); code != 0 {
		t.Fatal(stderr)
	}
	done := make(chan struct{})
	quarantine := make(chan []span)
	go func() { quarantine <- h.watchQuarantine(done) }()
	ended := func() int {
		var list []manager.View
		if err := h.get("/v1/tasks?ended=2000", &list); err != nil {
			return -1
		}
		n := 0
		for _, v := range list {
			if v.Status == manager.Ended {
				n++
			}
		}
		return n
	}
	restarts := 0
	for step := range 24 {
		i := random.IntN(7)
		switch step % 6 {
		case 0: // it recovers by itself
			h.fake.Xid(i, []uint64{13, 31, 48, 95}[random.IntN(4)])
		case 1: // it does not, till the next step
			h.fake.Update(func(gpus []*fakegpu.GPU) { gpus[i].Recovery = 1 })
			h.fake.Xid(i, 79)
		case 2:
			h.fake.Update(mended)
		case 3:
			for _, pid := range h.helpers() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		case 4:
			h.fake.Hang("nvmlDeviceGetPowerUsage")
			time.Sleep(1200 * time.Millisecond) // longer than a call may take
			h.fake.ClearFaults()
		case 5:
			if step%12 == 5 {
				h.fake.Crash("nvmlDeviceGetPowerUsage")
				time.Sleep(50 * time.Millisecond)
				h.fake.ClearFaults()
			} else {
				restarts++
				h.kill()
				h.start()
			}
		}
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
	}
	h.fake.Update(mended)
	t.Logf("chaos over: %d ended", ended())
	for n := ended(); n < count; {
		before := n
		h.until("one more has ended", func() bool { n = ended(); return n > before }, func() any { return fmt.Sprint(n, " have") }, func() any { return h.overview() }, func() any { return h.tasks() })
	}
	close(done)
	spans := <-quarantine
	h.allFree()
	if text, err := os.ReadFile(filepath.Join(h.shared, "marks/violations")); err == nil {
		t.Errorf("two owners:\n%s", text)
	}
	causes := map[queue.Cause]int{}
	for id, cause := range want {
		r := h.result(id)
		for _, a := range r.Attempts {
			causes[a.Cause]++
		}
		if r.Cause != cause && r.Cause != queue.CauseGPUFault {
			t.Errorf("%s: %s: %s", id, r.Cause, r.Message)
		}
		for _, s := range spans {
			if slices.Contains(r.GPUs, s.uuid) && r.StartedAt.After(s.from) && r.StartedAt.Before(s.to) && r.Cause != queue.CauseGPUFault {
				t.Errorf("%s began at %s on %s, which was in quarantine from %s to %s", r.ID, r.StartedAt, s.uuid, s.from, s.to)
			}
		}
	}
	t.Logf("causes of attempts: %v; %d times in quarantine, %d restarts", causes, len(spans), restarts)
	if causes[queue.CauseGPUFault] == 0 || causes[queue.CauseNone] == 0 || len(spans) == 0 || restarts == 0 {
		t.Error("not all happened that was to happen")
	}
}

// mended has no GPU to be reset any more.
func mended(gpus []*fakegpu.GPU) {
	for _, g := range gpus {
		g.Recovery = 0
	}
}

// span is a time in which a device was seen in quarantine.
type span struct {
	uuid     string
	from, to time.Time
}

// watchQuarantine notes what is in quarantine and when, as far as two looks agree.
func (h *gpuHost) watchQuarantine(done chan struct{}) (all []span) {
	open := map[string]int{} // positions, by UUID and beginning
	for {
		select {
		case <-done:
			return all
		case <-time.After(100 * time.Millisecond):
		}
		now := time.Now()
		var o gpu.Overview
		if h.get("/v1/gpus", &o) != nil {
			continue // it is being restarted
		}
		for _, d := range o.GPUs {
			if d.Since == nil {
				continue
			}
			key := d.UUID + d.Since.String()
			at, ok := open[key]
			if !ok {
				at = len(all)
				open[key] = at
				all = append(all, span{d.UUID, *d.Since, *d.Since})
			}
			all[at].to = now
		}
	}
}
