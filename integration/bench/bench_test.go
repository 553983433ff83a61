package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func sample(t *testing.T) *report {
	t.Helper()
	f, err := os.Open("testdata/bench.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParse(t *testing.T) {
	t.Parallel()
	r := sample(t)
	want := []string{"BenchmarkThroughput/4.0", "BenchmarkThroughput/embedded", "BenchmarkPeers/exec", "BenchmarkPeers/slurm-array", `BenchmarkPeers/a<b>&"c"`,
		"BenchmarkPeers/systemd-run", "BenchmarkSpawn/exec"}
	if got := r.names(); !slices.Equal(got, want) {
		t.Errorf("names: %q, want %q", got, want)
	}
	if r.Machine.CPU != "Intel(R) Xeon(R) Processor" {
		t.Errorf("processor: %q", r.Machine.CPU)
	}
	if one := r.Results[len(r.Results)-1]; one.Package != "github.com/mayfly/mayfly/worker/keeper" || one.Rounds != 4000 {
		t.Errorf("last result: %+v", one)
	}
	if len(r.Missing) != 1 || r.Missing[0].Name != "BenchmarkPeers/celery" || r.Missing[0].Reason != "python3-celery is not installed: run make setup-peers" {
		t.Errorf("missing: %+v", r.Missing)
	}
	for _, m := range []struct {
		name, unit string
		want       float64
		ok         bool
	}{
		{"BenchmarkThroughput/4.0", "loop-tasks/s", 858, true},
		{"BenchmarkThroughput/4.0", "of-loop", 0.5303, true},
		{"BenchmarkThroughput/embedded", "loop-tasks/s", 0, false},
		{"BenchmarkSpawn/exec", "ns/op", 600000, true}, // of two
		{"BenchmarkNone", "tasks/s", 0, false},
	} {
		if got, ok := r.metric(m.name, m.unit); got != m.want || ok != m.ok {
			t.Errorf("%s of %s: %v, %v, want %v, %v", m.unit, m.name, got, ok, m.want, m.ok)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"PASS\n":                          "cannot find a result",
		"BenchmarkA-2 3 12 tasks/s 7\n":   "cannot read line 1: BenchmarkA-2 has a value without a unit",
		"\nBenchmarkA-2 3 twelve ns/op\n": `cannot read line 2: BenchmarkA-2 has "twelve" ns/op`,
		"BenchmarkA-2 3 NaN tasks/s\n":    `has "NaN" tasks/s`, // JSON has no such number
	} {
		if _, err := parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestJSON holds that what is written can be drawn from.
func TestJSON(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/bench.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run([]string{"json", "v1"}, bytes.NewReader(text), &out); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Versions["mayfly"] != "v1" || r.Versions["go"] == "" || r.Machine.Cores < 1 || r.Machine.MemoryBytes < 1<<20 || r.Machine.Kernel == "" || r.Date.IsZero() {
		t.Errorf("%+v", r)
	}
	dir := t.TempDir()
	if err := run([]string{"svg", dir}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for name := range plots {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := run([]string{"svg"}, &out, io.Discard); err == nil || !strings.HasPrefix(err.Error(), "usage:") {
		t.Errorf("without a folder: %v", err)
	}
}

func TestThroughput(t *testing.T) {
	t.Parallel()
	p := throughput(sample(t))
	want := []bar{{"fork and exec alone", 1800, false}, {"bare loop, RabbitMQ 4.0", 858, false}, {"Mayfly, embedded queue", 559, true}, {"Mayfly, RabbitMQ 4.0", 455, true},
		{`Peers/a<b>&"c"`, 100, false}, {"Slurm, a job array", 12.34, false}}
	if !slices.Equal(p.Bars, want) {
		t.Errorf("%+v\nwant %+v", p.Bars, want)
	}
	if last := p.Notes[len(p.Notes)-1]; last != "Not measured: Celery, processes that live on" {
		t.Errorf("notes: %q", p.Notes)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	r := sample(t)
	if p := latency(r); len(p.Bars) != 0 {
		t.Errorf("of nothing measured: %+v", p.Bars)
	}
	r.Results = append(r.Results, result{Name: "BenchmarkZero", Metrics: map[string]float64{"p50-ms": 20}},
		result{Name: "BenchmarkLatency/idle", Metrics: map[string]float64{"p99.9-ms": 17, "p50-ms": 3.4}})
	want := []bar{{"idle host: half of the tasks within", 3.4, true}, {"999 of 1,000", 17, true}, {"the first one after a rest: half within", 20, true}}
	if p := latency(r); !slices.Equal(p.Bars, want) {
		t.Errorf("%+v, want %+v", p.Bars, want)
	}
}

// TestSVG holds that a drawing is XML, whatever the names are, and that bars are as long as they should be.
func TestSVG(t *testing.T) {
	t.Parallel()
	text, err := throughput(sample(t)).svg()
	if err != nil {
		t.Fatal(err)
	}
	var words, widths []string
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		switch token := token.(type) {
		case xml.CharData:
			words = append(words, string(token))
		case xml.StartElement:
			of := map[string]string{}
			for _, a := range token.Attr {
				of[a.Name.Local] = a.Value
			}
			if of["class"] == "bar" || of["class"] == "ours" {
				widths = append(widths, of["width"])
			}
		}
	}
	for _, want := range []string{`Peers/a<b>&"c"`, "1,800", "Not measured: Celery, processes that live on"} {
		if !slices.Contains(words, want) {
			t.Errorf("%q is not in it: %q", want, words)
		}
	}
	if want := []string{"420", "200", "130", "106", "23", "3"}; !slices.Equal(widths, want) {
		t.Errorf("widths %q, want %q", widths, want)
	}
	if _, err := (&plot{Title: "nothing"}).svg(); err != nil {
		t.Error(err)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0.0", 3.44: "3.4", 12.34: "12", 999.6: "1,000", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// TestDocumented holds that the plots in docs are of the results that are kept there.
func TestDocumented(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../docs/bench.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	if err := run([]string{"svg", dir}, f, io.Discard); err != nil {
		t.Fatal(err)
	}
	for name := range plots {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join("../../docs/images", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/images/%s is not what docs/bench.json says (%v): make plots", name, err)
		}
	}
}
