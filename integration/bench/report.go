package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// report is one run of the benchmarks, as it is kept.
type report struct {
	Date     time.Time         `json:"date"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Results  []result          `json:"results"`
	// Missing are those that were not measured, and why.
	Missing []missing `json:"missing,omitempty"`
}

// result is one line of the benchmarks' output.
type result struct {
	// Name is the benchmark's, without the number of processors.
	Name    string `json:"name"`
	Package string `json:"package"`
	Rounds  int    `json:"rounds"`
	// Metrics are by their unit.
	Metrics map[string]float64 `json:"metrics"`
}

type missing struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// parse reads what `go test -bench` prints (https://go.dev/design/14313-benchmark-format), and our own lines of what is missing. It is done here because
// golang.org/x/perf, which has a reader of that format, requires databases and clients of a cloud, too.
func parse(in io.Reader) (*report, error) {
	r := &report{}
	pkg := ""
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if value, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = value
		} else if value, ok := strings.CutPrefix(line, "cpu: "); ok {
			r.Machine.CPU = value
		} else if value, ok := strings.CutPrefix(line, "MISSING "); ok {
			name, reason, _ := strings.Cut(value, ": ")
			r.Missing = append(r.Missing, missing{Name: name, Reason: reason})
		} else if strings.HasPrefix(line, "Benchmark") {
			one, err := parseResult(line)
			if err != nil {
				return nil, fmt.Errorf("cannot read line %d: %w", n, err)
			}
			if one != nil {
				one.Package = pkg
				r.Results = append(r.Results, *one)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read the benchmarks' output: %w", err)
	}
	if len(r.Results) == 0 {
		return nil, errors.New("cannot find a result in the benchmarks' output")
	}
	return r, nil
}

// parseResult reads a line that begins with a benchmark's name; it returns nothing where that is all it has.
func parseResult(line string) (*result, error) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return nil, nil
	}
	rounds, err := strconv.Atoi(f[1])
	if err != nil {
		return nil, nil // what a test says of itself
	}
	one := &result{Name: f[0], Rounds: rounds, Metrics: map[string]float64{}}
	if i := strings.LastIndexByte(f[0], '-'); i > 0 {
		if _, err := strconv.ParseUint(f[0][i+1:], 10, 32); err == nil {
			one.Name = f[0][:i]
		}
	}
	if len(f)%2 != 0 {
		return nil, fmt.Errorf("%s has a value without a unit", f[0])
	}
	for i := 2; i < len(f); i += 2 {
		value, err := strconv.ParseFloat(f[i], 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			return nil, fmt.Errorf("%s has %q %s, which is no number", f[0], f[i], f[i+1])
		}
		one.Metrics[f[i+1]] = value
	}
	return one, nil
}

// metric is the mean of what a benchmark measured in a unit, where it did.
func (r *report) metric(name, unit string) (mean float64, ok bool) {
	sum, n := 0.0, 0
	for _, one := range r.Results {
		if value, has := one.Metrics[unit]; has && one.Name == name {
			sum, n = sum+value, n+1
		}
	}
	if n == 0 {
		return 0, false
	}
	return sum / float64(n), true
}

// names lists the benchmarks, each once, as they came.
func (r *report) names() []string {
	var names []string
	seen := map[string]bool{}
	for _, one := range r.Results {
		if !seen[one.Name] {
			seen[one.Name] = true
			names = append(names, one.Name)
		}
	}
	return names
}
