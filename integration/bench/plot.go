package main

import (
	"bytes"
	_ "embed" // for the drawing
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
)

// plots are the files that are drawn.
var plots = map[string]func(*report) *plot{"throughput.svg": throughput, "latency.svg": latency}

// plot is a chart of bars that lie on their side.
type plot struct {
	Title string
	Bars  []bar
	// Notes stand below the bars, a line each.
	Notes []string
}

// bar is one of them.
type bar struct {
	Label string
	Value float64
	// Ours is drawn in another colour.
	Ours bool
}

// labels say what those benchmarks are that run `true`, by name and unit.
var labels = map[[2]string]string{
	{"BenchmarkPeers/exec", "tasks/s"}:                          "fork and exec alone",
	{"BenchmarkPeers/xargs", "tasks/s"}:                         "xargs -P4 -n1",
	{"BenchmarkPeers/parallel", "tasks/s"}:                      "GNU parallel -j4",
	{"BenchmarkPeers/bubblewrap", "tasks/s"}:                    "bubblewrap",
	{"BenchmarkPeers/docker-run", "tasks/s"}:                    "docker run --rm",
	{"BenchmarkPeers/rabbitmq-cli-consumer/classic", "tasks/s"}: "rabbitmq-cli-consumer, classic queue",
	{"BenchmarkPeers/rabbitmq-cli-consumer/quorum", "tasks/s"}:  "rabbitmq-cli-consumer, quorum queue",
	{"BenchmarkPeers/celery", "tasks/s"}:                        "Celery, processes that live on",
	{"BenchmarkPeers/celery-process-per-task", "tasks/s"}:       "Celery, a process per task",
	{"BenchmarkPeers/slurm-array", "tasks/s"}:                   "Slurm, a job array",
	{"BenchmarkPeers/slurm-steps", "tasks/s"}:                   "Slurm, steps of one job",
	{"BenchmarkPeers/systemd-run", "tasks/s"}:                   "systemd-run",
	{"BenchmarkThroughput/embedded", "tasks/s"}:                 "Mayfly, embedded queue",
}

// label is what a benchmark is called in a plot, and whether it is of Mayfly.
func label(name, unit string) (text string, ours bool) {
	base, rest, _ := strings.Cut(name, "/")
	ours = base == "BenchmarkThroughput" && unit == "tasks/s"
	if text := labels[[2]string{name, unit}]; text != "" {
		return text, ours
	}
	switch {
	case base == "BenchmarkThroughput" && unit == "loop-tasks/s":
		return "bare loop, RabbitMQ " + rest, false
	case ours:
		return "Mayfly, RabbitMQ " + rest, true
	}
	return strings.TrimPrefix(name, "Benchmark"), false
}

// throughput shows all rates, highest first.
func throughput(r *report) *plot {
	p := &plot{Title: "Tasks a second: /bin/true, four at a time", Notes: footing(r)}
	for _, name := range r.names() {
		for _, unit := range []string{"tasks/s", "loop-tasks/s"} {
			if value, ok := r.metric(name, unit); ok {
				text, ours := label(name, unit)
				p.Bars = append(p.Bars, bar{Label: text, Value: value, Ours: ours})
			}
		}
	}
	slices.SortStableFunc(p.Bars, func(a, b bar) int {
		switch {
		case a.Value > b.Value:
			return -1
		case a.Value < b.Value:
			return 1
		}
		return strings.Compare(a.Label, b.Label)
	})
	var absent []string
	for _, m := range r.Missing {
		text, _ := label(m.Name, "tasks/s")
		absent = append(absent, text)
	}
	if len(absent) > 0 {
		p.Notes = append(p.Notes, "Not measured: "+strings.Join(absent, ", "))
	}
	return p
}

// latency shows how long it takes from publishing to the program's first act.
func latency(r *report) *plot {
	p := &plot{Title: "Milliseconds from publishing a task to its program's first act", Notes: footing(r)}
	for _, one := range [][3]string{{"BenchmarkLatency/idle", "p50-ms", "idle host: half of the tasks within"}, {"BenchmarkLatency/idle", "p99-ms", "99 of 100"}, {"BenchmarkLatency/idle", "p99.9-ms", "999 of 1,000"},
		{"BenchmarkLatency/loaded", "p50-ms", "all cores busy: half of them within"}, {"BenchmarkLatency/loaded", "p99-ms", "99 of 100"}, {"BenchmarkLatency/loaded", "p99.9-ms", "999 of 1,000"},
		{"BenchmarkZero", "p50-ms", "the first one after a rest: half within"}} {
		if value, ok := r.metric(one[0], one[1]); ok {
			p.Bars = append(p.Bars, bar{Label: one[2], Value: value, Ours: true})
		}
	}
	return p
}

// footing says where and when it was measured.
func footing(r *report) []string {
	var parts []string
	for _, part := range []string{r.Machine.CPU, r.Machine.System} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if r.Machine.Cores > 0 {
		parts = slices.Insert(parts, min(1, len(parts)), fmt.Sprintf("%d cores", r.Machine.Cores))
	}
	if r.Machine.Kernel != "" {
		parts = append(parts, "Linux "+r.Machine.Kernel)
	}
	if !r.Date.IsZero() {
		parts = append(parts, r.Date.Format("2006-01-02"))
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{strings.Join(parts, ", ")}
}

//go:embed plot.svg.tmpl
var drawing string

// A bar's row is so high; labels and bars have so much room.
const (
	rowHeight, barHeight = 26, 16
	barLeft, barWidth    = 270, 420
	top                  = 48
)

var chart = template.Must(template.New("plot").Parse(drawing))

// svg draws the plot. It has a background of its own, for it cannot know that of the page.
func (p *plot) svg() ([]byte, error) {
	highest := 0.0
	for _, b := range p.Bars {
		highest = max(highest, b.Value)
	}
	type row struct {
		bar
		Text                string
		Y, Middle, TextLeft int
		Width               int
	}
	type line struct {
		Y    int
		Text string
	}
	d := struct {
		Title         string
		Height, Width int
		Left, Labels  int
		BarHeight     int
		Rows          []row
		Notes         []line
	}{Title: p.Title, Width: barLeft + barWidth + 80, Left: barLeft, Labels: barLeft - 10, BarHeight: barHeight}
	y := top
	for _, b := range p.Bars {
		width := 1 // what is there is seen
		if highest > 0 {
			width = max(width, int(b.Value/highest*barWidth+0.5))
		}
		d.Rows = append(d.Rows, row{bar: b, Text: number(b.Value), Y: y, Middle: y + barHeight - 4, Width: width, TextLeft: barLeft + width + 6})
		y += rowHeight
	}
	for _, text := range p.Notes {
		y += 20
		d.Notes = append(d.Notes, line{Y: y - 4, Text: text})
	}
	d.Height = y + 12
	var b bytes.Buffer
	if err := chart.Execute(&b, d); err != nil {
		return nil, fmt.Errorf("cannot draw %q: %w", p.Title, err)
	}
	return b.Bytes(), nil
}

// number is a figure with no more digits than it deserves.
func number(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	text := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
