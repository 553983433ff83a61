package integration

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mayfly/mayfly/integration/broker"
	"github.com/mayfly/mayfly/integration/need"
)

// TestSystemCalls holds how many system calls a task takes: of the manager, of the keeper, and of the child before it is the program. What the program itself
// calls is not ours, and the naps of the Go runtime's monitor are so many a second. docs/performance.md has the figures.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	const tasks = 100
	strace, err := exec.LookPath("strace")
	if err != nil {
		need.Missing(t, "system calls cannot be counted: %v", err)
	}
	url := broker.Shared(t, broker.V40).Vhost(t)
	h := newHost(t, "MAYFLY_AMQP_URL="+url, "MAYFLY_CPUS=3", "MAYFLY_LOG_LEVEL=warn")
	h.start()
	h.connected()
	p := newProducer(t, url)
	p.publish("default", `{"id": "stays", "command": ["sleep", "10000"]}`) // and with it the keeper
	h.runs(p, "first", tasks, 1)                                           // what is made once
	trace := filepath.Join(t.TempDir(), "trace")
	manager, keeper := h.cmd.Process.Pid, h.keeperPID()
	cmd := exec.Command(strace, "-f", "-o", trace, "-p", strconv.Itoa(manager), "-p", strconv.Itoa(keeper))
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var words []string
	attached := 0
	for lines := bufio.NewScanner(said); attached < 2 && lines.Scan(); {
		words = append(words, lines.Text())
		for _, pid := range []int{manager, keeper} {
			if strings.Contains(lines.Text(), fmt.Sprintf(": Process %d attached", pid)) {
				attached++
			}
		}
	}
	if attached < 2 {
		_ = cmd.Wait()
		need.Missing(t, "system calls cannot be counted: %q", words)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, said)
	}()
	h.runs(p, "then", tasks, 1)
	// It lets go of all and ends.
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-heard
	_ = cmd.Wait()
	calls := traced(t, trace, map[int]string{manager: "manager", keeper: "keeper"})
	for who, most := range map[string]int{"manager": 90, "keeper": 120, "child": 30} {
		delete(calls[who], "nanosleep")
		total := 0
		for _, n := range calls[who] {
			total += n
		}
		names := slices.SortedFunc(maps.Keys(calls[who]), func(a, b string) int { return calls[who][b] - calls[who][a] })
		var text strings.Builder
		for _, name := range names {
			if n := float64(calls[who][name]) / tasks; n >= 0.1 {
				fmt.Fprintf(&text, " %s %.1f", name, n)
			}
		}
		t.Logf("%s: %.1f system calls a task:%s", who, float64(total)/tasks, &text)
		if total == 0 || total > most*tasks {
			t.Errorf("%s: %.1f system calls a task, at most %d", who, float64(total)/tasks, most)
		}
	}
	h.expect(0, "", "", "cancel", "stays")
	p.wait("stays")
}

// begins is a line of the trace with which a call begins: the thread, the name, and the rest.
var begins = regexp.MustCompile(`^(\d+) +(\w+)\((.*)`)

// traced counts the calls in a trace by process, and by name: those of the processes that are named, and, as "child", those of all others until they execute something.
func traced(t *testing.T, path string, named map[int]string) map[string]map[string]int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	of := map[int]string{} // by thread
	for pid, who := range named {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range threads {
			id, _ := strconv.Atoi(e.Name())
			of[id] = who
		}
	}
	calls := map[string]map[string]int{}
	executed := map[int]bool{}
	for line := range strings.Lines(string(text)) {
		m := begins.FindStringSubmatch(line)
		if m == nil {
			continue // the end of a call, a signal, an exit
		}
		id, _ := strconv.Atoi(m[1])
		who := of[id]
		if who == "" {
			if who = "child"; executed[id] {
				continue
			}
			executed[id] = m[2] == "execve"
		}
		if calls[who] == nil {
			calls[who] = map[string]int{}
		}
		calls[who][m[2]]++
	}
	return calls
}
