package realgpu

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// verdict is what became of a check.
type verdict string

const (
	passed  verdict = "pass"
	failed  verdict = "FAIL"
	skipped verdict = "skipped"
)

// line is one check's in the report.
type line struct {
	name     string
	verdict  verdict
	measured []string
	wrong    []string
}

// report is what a run has found. It is written as a whole each time.
type report struct {
	path string
	// dry says that no real GPU has part in it.
	dry   bool
	began time.Time
	facts [][2]string
	lines []*line
	// selfCheck is what `mayfly check` says, log the end of the managers' logs where something failed.
	selfCheck, log string
	// over says that the run has come to its end.
	over bool
}

// counts says how many checks ended in which way.
func (r *report) counts() map[verdict]int {
	n := map[verdict]int{}
	for _, l := range r.lines {
		n[l.verdict]++
	}
	return n
}

// cell puts text into a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "\\|")
}

// text is the report in Markdown.
func (r *report) text() string {
	var b strings.Builder
	if r.dry {
		b.WriteString("# Dry run: no real GPU had part in this\n\nNVML and CUDA were stand-ins. This shows that the checks work, and nothing about GPUs.\n\n")
	} else {
		b.WriteString("# Mayfly on real GPUs\n\n`make test-gpu` has written this report on the machine that it is about: real CUDA programs as tasks, NVIDIA's own\n" +
			"driver, the built `mayfly` with its embedded queue.\n\n")
	}
	n := r.counts()
	outcome := fmt.Sprintf("%d checks passed, %d failed, %d skipped", n[passed], n[failed], n[skipped])
	if !r.over {
		outcome += ", and **the run was cut short**"
	}
	b.WriteString("| | |\n| --- | --- |\n")
	for _, f := range append([][2]string{{"date", r.began.UTC().Format("2006-01-02 15:04 UTC")}, {"outcome", outcome}}, r.facts...) {
		fmt.Fprintf(&b, "| %s | %s |\n", f[0], cell(f[1]))
	}
	b.WriteString("\n| check | | measured |\n| --- | --- | --- |\n")
	for _, l := range r.lines {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(l.name), l.verdict, cell(strings.Join(l.measured, "; ")))
	}
	if n[failed] > 0 {
		b.WriteString("\n## What failed\n\n")
		for _, l := range r.lines {
			if l.verdict == failed {
				fmt.Fprintf(&b, "- **%s**: %s\n", l.name, cell(strings.Join(l.wrong, "; ")))
			}
		}
	}
	block := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, "\n## %s\n\n```\n%s\n```\n", title, strings.TrimSpace(text))
		}
	}
	block("What `mayfly check` says of the machine", r.selfCheck)
	block("The end of the managers' logs", r.log)
	return b.String()
}

// write replaces the report's file.
func (r *report) write() error {
	if r.path == "" {
		return nil
	}
	return os.WriteFile(r.path, []byte(r.text()), 0o644)
}

// fact adds something about the machine.
func (r *report) fact(name, text string) {
	if text = strings.TrimSpace(text); text != "" {
		r.facts = append(r.facts, [2]string{name, text})
	}
}

// aboutMachine adds what the kernel tells of it.
func (r *report) aboutMachine() {
	field := func(path, key string) string {
		f, err := os.Open(path)
		if err != nil {
			return ""
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			name, value, _ := strings.Cut(s.Text(), "=")
			if strings.Contains(path, "/proc") {
				name, value, _ = strings.Cut(s.Text(), ":")
			}
			if strings.TrimSpace(name) == key {
				return strings.Trim(value, "\" \t")
			}
		}
		return ""
	}
	model := field("/proc/cpuinfo", "model name")
	r.fact("processors", fmt.Sprintf("%d %s (%s)", runtime.NumCPU(), model, runtime.GOARCH))
	r.fact("memory", field("/proc/meminfo", "MemTotal"))
	r.fact("system", field("/etc/os-release", "PRETTY_NAME"))
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.fact("kernel", unix.ByteSliceToString(u.Release[:]))
	}
	if paths, _ := filepath.Glob("/.dockerenv"); len(paths) > 0 || os.Getenv("container") != "" {
		r.fact("container", "the run itself was in a container")
	}
}
