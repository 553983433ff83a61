package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	mayfly "github.com/mayfly/mayfly/clients/go"
)

// run is what the ledger tells of one run of a task.
type run struct {
	host     string
	from, to time.Time
	end      bool
}

// report mends what is broken, and holds the ledger against the results.
func (c *chaos) report(tasks int, results map[string]mayfly.Result) {
	t := c.t
	for _, next := range slices.Clone(c.plan) { // what it does adds to the plan, and puts it in order
		if next.mends {
			next.do() // what it plans is not done any more
		}
	}
	runs := c.runs()
	lost, unfinished := 0, 0
	for i := range tasks {
		id := fmt.Sprintf("c%05d", i)
		r, ok := results[id]
		if !ok {
			lost++
			c.tellRuns(id, runs[id])
			c.fail("%s is lost, of which the hosts have said:\n%s", id, c.said(id))
		} else if r.State != "succeeded" {
			unfinished++
			c.fail("%s: %s, %s: %s", r.ID, r.State, r.Cause, r.Message)
		}
	}
	twice, unexplained, why := map[string]bool{}, 0, map[string]int{}
	for id, list := range runs {
		finished := slices.DeleteFunc(slices.Clone(list), func(r run) bool { return !r.end })
		if len(finished) < 2 {
			continue
		}
		twice[id] = true
		var kinds []string
		for i, r := range finished[1:] {
			more := c.explain(finished[i], r)
			if len(more) == 0 { // a host that dies between a copy for the next try and its note of it leaves two that will be run, by whomever
				for _, before := range list {
					if !before.end && before.from.Before(r.from) {
						more = append(more, c.explain(before, r)...)
					}
				}
			}
			if len(more) == 0 {
				kinds = nil
				break
			}
			kinds = append(kinds, more...)
		}
		c.tellRuns(id, list)
		slices.Sort(kinds)
		for _, kind := range slices.Compact(kinds) {
			why[kind]++
		}
		if len(kinds) == 0 {
			unexplained++
			c.fail("%s ran to its end %d times without a reason:\n%s", id, len(finished), c.said(id))
		}
	}
	count := map[string]int{}
	for _, f := range c.faults {
		c.tell(f.from, "%s: %s until %.2f s", f.host, f.kind, f.to.Sub(c.begin).Seconds())
		count[f.kind]++
	}
	if !t.Failed() { // else it is told at the end
		t.Log(c.story())
	}
	t.Logf("faults: %v", count)
	t.Logf("%d tasks, %d lost, %d not succeeded, %d ran to their end twice: %v, %d without a reason", tasks, lost, unfinished, len(twice), why, unexplained)
	if lost > 0 {
		c.fail("%d tasks are lost", lost)
	}
	c.quiet()
}

// tellRuns notes the runs of a task.
func (c *chaos) tellRuns(id string, runs []run) {
	for _, r := range runs {
		c.tell(r.from, "%s begun on %s", id, r.host)
		if r.end {
			c.tell(r.to, "%s ended on %s", id, r.host)
		}
	}
}

// said returns what all hosts have logged of a task.
func (c *chaos) said(id string) string {
	var lines []string
	for _, h := range c.hosts {
		for line := range strings.Lines(h.logged()) {
			if strings.Contains(line, `"`+id+`"`) {
				lines = append(lines, h.name()+": "+line)
			}
		}
	}
	return strings.Join(lines, "")
}

// explain lists what happened to the host of the first run between its beginning and the beginning of the second. A host that has run a task does not
// run it again, unless the keeper died with what it knew.
func (c *chaos) explain(first, second run) (kinds []string) {
	for _, f := range c.faults {
		if f.host == first.host && f.kind != slowness && f.kind != stopKeeper && (first.host != second.host || f.kind == killKeeper) && f.from.Before(second.from) && f.to.After(first.from) && !slices.Contains(kinds, f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	return kinds
}

// runs reads the ledger: the runs of each task in the order of their beginnings.
func (c *chaos) runs() map[string][]run {
	text, err := os.ReadFile(c.ledger)
	if err != nil {
		c.t.Fatal(err)
	}
	runs := map[string][]run{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			c.t.Fatalf("the ledger has the line %q", line)
		}
		ns, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		id, host, at := f[1], f[2], time.Unix(0, ns)
		if f[0] == "begin" {
			runs[id] = append(runs[id], run{host: host, from: at})
			continue
		}
		for i := range runs[id] { // the first that has not ended there: a task has one run at a time on a host
			if r := &runs[id][i]; r.host == host && !r.end {
				r.end, r.to = true, at
				break
			}
		}
	}
	return runs
}

// quiet waits until all queues are empty and no host has anything left.
func (c *chaos) quiet() {
	c.hosts[0].until("all queues are empty", func() bool {
		out, err := c.nodes[0].Ctl("list_queues", "--quiet", "--no-table-headers", "name", "messages")
		return err == nil && !slices.ContainsFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool {
			name, n, _ := strings.Cut(line, "\t")
			return n != "0" && name != "mayfly.cancels" && name != "mayfly.pulse" && n != ""
		})
	}, func() any {
		out, _ := c.nodes[0].Ctl("list_queues", "--quiet", "name", "messages")
		return out
	})
	for _, h := range c.hosts {
		h.until("it has no task", func() bool {
			return len(h.tasks()) == 0
		}, func() any { return h.tasks() })
	}
}
