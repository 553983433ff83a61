package realgpu

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/queue"
)

const (
	// runLimit is how long a run may take: what is left then is not begun. checkLimit is how long most checks may, startLimit the
	// first look at the GPUs, with firmware to be loaded, and shortLimit a short task.
	runLimit   = 8 * time.Minute
	checkLimit = time.Minute
	startLimit = 2 * time.Minute
	shortLimit = 5 * time.Second
)

// suite runs checks on a machine, and has them in a report.
type suite struct {
	*machine
	report *report
	until  time.Time
	// host is the manager that the checks speak to.
	host *host
	// all are the GPUs and MIG devices as they were before anything ran; idle, by UUID, those of them that could be lent then.
	all  []gpu.Status
	idle map[string]gpu.Status
	// tasks counts what was submitted.
	tasks int
}

// check is one of them while it runs: what it measures and finds wrong goes to the report as well as to the test.
type check struct {
	*testing.T
	*suite
	ctx  context.Context
	line *line
}

// check runs one, and reports whether nothing was wrong.
func (s *suite) check(t *testing.T, name string, limit time.Duration, run func(c *check)) bool {
	t.Helper()
	l := &line{name: name, verdict: failed}
	s.report.lines = append(s.report.lines, l)
	return t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), min(limit, time.Until(s.until)))
		defer cancel()
		c := &check{T: t, suite: s, ctx: ctx, line: l}
		defer func() {
			switch {
			case t.Failed():
				if len(l.wrong) == 0 {
					l.wrong = []string{"it ended in the middle"}
				}
				s.cancelAll()
			case t.Skipped():
				l.verdict = skipped
			default:
				l.verdict = passed
			}
			if err := s.report.write(); err != nil {
				t.Errorf("cannot write the report: %v", err)
			}
		}()
		if !time.Now().Before(s.until) {
			c.fatal("it was not begun: the run's time of %s was over", runLimit)
		}
		run(c)
	})
}

// cancelAll ends what a check has left running, so that the next one finds free GPUs.
func (s *suite) cancelAll() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if s.host == nil {
		return
	}
	list, _ := s.host.client.List(ctx, nil) // a manager that does not answer is what the next check says
	for i := range list {
		_, _ = s.host.client.Cancel(ctx, list[i].ID)
	}
}

func (c *check) measured(format string, args ...any) {
	c.Helper()
	text := fmt.Sprintf(format, args...)
	c.Log(text)
	c.line.measured = append(c.line.measured, text)
}

// wrong notes what is; fatal ends the check over it.
func (c *check) wrong(format string, args ...any) {
	c.Helper()
	text := fmt.Sprintf(format, args...)
	c.line.wrong = append(c.line.wrong, text)
	c.Error(text)
}

func (c *check) fatal(format string, args ...any) {
	c.Helper()
	c.wrong(format, args...)
	c.FailNow()
}

func (c *check) must(err error) {
	c.Helper()
	if err != nil {
		c.fatal("%v", err)
	}
}

// without skips the check for want of something.
func (c *check) without(format string, args ...any) {
	c.Helper()
	c.measured(format, args...)
	c.SkipNow()
}

// begin submits a task that runs the CUDA program in one of its modes.
func (c *check) begin(r resources, mode ...string) (id string) {
	c.Helper()
	c.tasks++
	id = fmt.Sprintf("task-%d", c.tasks)
	c.must(c.host.submit(c.ctx, id, r, append([]string{c.host.dir + "/cuda-task"}, mode...)...))
	return id
}

// shell runs a script to its end. $CUDA in it is the CUDA program.
func (c *check) shell(r resources, script string, words ...string) queue.Result {
	c.Helper()
	c.tasks++
	id := fmt.Sprintf("task-%d", c.tasks)
	c.must(c.host.submit(c.ctx, id, r, append([]string{"/bin/sh", "-c", "CUDA=" + c.host.dir + "/cuda-task\n" + script, "sh"}, words...)...))
	return c.result(id)
}

func (c *check) result(id string) queue.Result {
	c.Helper()
	r, err := c.host.result(c.ctx, id)
	c.must(err)
	return r
}

// run runs the CUDA program to its end.
func (c *check) run(r resources, mode ...string) queue.Result {
	c.Helper()
	return c.result(c.begin(r, mode...))
}

// free waits until all GPUs are, and says how long that took.
func (c *check) free() time.Duration {
	c.Helper()
	took, err := c.host.free(c.ctx, c.idle)
	c.must(err)
	return took
}

// succeeded ends the check where a task has not.
func (c *check) succeeded(r *queue.Result) said {
	c.Helper()
	if r.State != queue.Succeeded {
		c.fatal("%s: %s: %s; it said: %s%s", r.State, r.Cause, r.Message, r.StdoutTail, r.StderrTail)
	}
	return listen(r.StdoutTail)
}

// whole is a GPU that is lent as a whole; the check is skipped where there is none.
func (c *check) whole() gpu.Status {
	c.Helper()
	for _, d := range c.all { // the first of them, each time
		if _, free := c.idle[d.UUID]; free && d.Parent == "" {
			return d
		}
	}
	c.without("all GPUs are divided (MIG)")
	return gpu.Status{}
}

// said are the lines of the CUDA program: what it said of each word.
type said map[string][]string

func listen(stdout string) said {
	all := said{}
	for text := range strings.Lines(stdout) {
		word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		all[word] = append(all[word], rest)
	}
	return all
}

// of is what was said last of a word.
func (s said) of(word string) string {
	if list := s[word]; len(list) > 0 {
		return list[len(list)-1]
	}
	return ""
}

// uuids are those of the devices that it saw, as bare numbers.
func (s said) uuids() (list []string) {
	for _, text := range s["uuid"] {
		_, uuid, _ := strings.Cut(text, " ")
		list = append(list, uuid)
	}
	return list
}

// bare is a UUID without what says of what it is one.
func bare(uuid string) string {
	_, rest, _ := strings.Cut(uuid, "-")
	return strings.ToLower(rest)
}

// sum says in a few words whether the program computed the right sum.
func (c *check) sum(s said) string {
	c.Helper()
	if sum := s.of("sum"); sum == "" || sum != s.of("expected") {
		c.wrong("the sum is %q, and should be %q", sum, s.of("expected"))
		return "the sum was wrong"
	}
	return "the sum was right"
}
