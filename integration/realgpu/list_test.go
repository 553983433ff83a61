package realgpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
)

// checks runs all of them.
func (s *suite) checks(t *testing.T) {
	s.until = time.Now().Add(runLimit)
	s.report.began = time.Now()
	defer func() {
		s.report.over = true
		if err := s.report.write(); err != nil {
			t.Errorf("cannot write the report: %v", err)
		}
	}()
	s.report.aboutMachine()
	type named struct {
		name  string
		run   func(*check)
		limit time.Duration
	}
	for _, part := range []struct {
		name     string
		settings func(*check) []string
		checks   []named
	}{
		{"", func(*check) []string { return nil }, []named{
			{"the GPUs are those that nvidia-smi shows", inventory, checkLimit},
			{"a task without a GPU sees none", noGPU, checkLimit},
			{"a task with one GPU computes on that, and sees no other", oneGPU, checkLimit},
			{"device files of others are closed", fence, checkLimit},
			{"the account of a task: memory, energy, utilization", usage, checkLimit},
			{"too much memory: gpu_oom", tooMuch, checkLimit},
			{"an illegal address: the XID is told, the GPU goes on", fault, checkLimit},
			{"a process left behind: the GPU is clean all the same", linger, checkLimit},
			{"the manager is killed while a CUDA program runs", restart, checkLimit},
			{"a MIG instance", instance, checkLimit},
			{fmt.Sprintf("%d short tasks, one after the other", s.short), manyShort, checkLimit + time.Duration(s.short)*shortLimit},
			{"idle: nobody speaks to the driver", idle, checkLimit},
		}},
		{" (MAYFLY_GPU_SHARING=memory)", func(c *check) []string {
			return []string{"MAYFLY_GPU_SHARING=memory", "MAYFLY_GPUS=" + c.whole().UUID} // so that nothing else fits
		}, []named{{"shares of a GPU's memory", shares, checkLimit}}},
		{" (MAYFLY_SANDBOX=off)", func(*check) []string { return []string{"MAYFLY_SANDBOX=off"} }, []named{
			{"a task without a GPU sees none", noGPU, checkLimit},
			{"a task with one GPU computes on that, and sees no other", oneGPU, checkLimit},
			{"device files of others are closed", fence, checkLimit},
		}},
	} {
		if !s.check(t, "the GPUs are found and free"+part.name, startLimit, func(c *check) { c.open(part.settings(c)) }) || s.host == nil {
			if s.close(); s.idle == nil {
				return // there is nothing to check
			}
			continue
		}
		for _, k := range part.checks {
			s.check(t, k.name+part.name, k.limit, func(c *check) {
				c.free() // whatever the check before it has left
				k.run(c)
			})
		}
		s.close()
	}
}

// open starts a manager, and waits until it has looked at the GPUs.
func (c *check) open(settings []string) {
	var err error
	c.host, err = c.newHost(settings...)
	c.must(err)
	if c.report.selfCheck == "" {
		text, err := c.host.say(c.ctx, "check") // which fails where it has advice to give
		if c.report.selfCheck = text; text == "" {
			c.wrong("%v", err)
		}
	}
	c.must(c.host.start(c.ctx))
	o, err := c.host.client.GPUs(c.ctx)
	c.must(err)
	if len(o.GPUs) == 0 {
		c.fatal("%s", o.Note)
	}
	took, err := c.host.free(c.ctx, c.idle)
	c.must(err)
	c.measured("%d, after %s", len(o.GPUs), took)
	if c.idle != nil {
		return
	}
	o, err = c.host.client.GPUs(c.ctx)
	c.must(err)
	idle, models := map[string]gpu.Status{}, map[string]int{}
	for _, d := range o.GPUs {
		switch {
		case d.Reason != "":
			c.measured("GPU %d is left out, for %s", d.Index, d.Reason)
		case !d.Divided:
			idle[d.UUID] = d
		}
		if d.Parent == "" {
			models[d.Model+" with "+size(d.Memory)]++
		} else {
			models["MIG "+d.Profile]++
		}
	}
	if len(idle) == 0 {
		c.fatal("none is free")
	}
	c.all, c.idle = o.GPUs, idle
	var text []string
	for _, model := range slices.Sorted(maps.Keys(models)) {
		text = append(text, strconv.Itoa(models[model])+" "+model)
	}
	c.report.fact("GPUs", strings.Join(text, ", "))
	c.report.fact("driver", o.Driver)
	c.report.fact("CUDA", o.CUDA+" (the newest that the driver knows)")
	version, err := c.host.say(c.ctx, "version")
	c.must(err)
	c.report.fact("mayfly", version)
}

// close ends the manager. Where something failed, the report has the end of its log.
func (s *suite) close() {
	if s.host == nil {
		return
	}
	s.host.stop()
	if s.report.counts()[failed] > 0 {
		s.report.log += s.host.log.tail(4000) + "\n"
	}
	s.host = nil
}
