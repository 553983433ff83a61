package realgpu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/gpu"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// machine is what the checks run on.
type machine struct {
	// mayfly, task and smi are the paths of the programs: smi, nvidia-smi, may be empty.
	mayfly, task, smi string
	// root is what /dev is below; settings and variables are what managers and tasks have in their environment beside the usual.
	root      string
	settings  []string
	variables map[string]string
	// memory is what a task has of the host's.
	memory string
	// hold is how long a task keeps a GPU busy, short how many short tasks there are.
	hold  time.Duration
	short int
}

// host is a manager with a directory of its own. Workers see the directory, but for the state in it: /tmp they have to themselves.
type host struct {
	*machine
	dir    string
	env    []string
	client *api.Client
	cmd    *exec.Cmd
	ended  chan struct{}
	log    buffer
}

type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.text.Bytes()
	return string(text[max(0, len(text)-n):])
}

// place is where the directories of hosts are made.
const place = "/var/lib"

// newHost makes a host that is not started yet.
func (m *machine) newHost(settings ...string) (*host, error) {
	dir, err := os.MkdirTemp(place, "mayfly-gpu-")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(m.task)
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "cuda-task"), program, 0o755)); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	h := &host{machine: m, dir: dir, client: api.Dial(filepath.Join(dir, "api.sock"))}
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "MAYFLY_") {
			h.env = append(h.env, pair)
		}
	}
	h.env = append(h.env, "MAYFLY_STATE_DIR="+filepath.Join(dir, "state"), "MAYFLY_SOCKET="+filepath.Join(dir, "api.sock"), "MAYFLY_HOST=gpu-test",
		"MAYFLY_CONTAINERS=off", "MAYFLY_GRACE=2s", "MAYFLY_LOG_FORMAT=text")
	h.env = append(append(h.env, m.settings...), settings...)
	return h, nil
}

// start runs a manager and returns when it answers.
func (h *host) start(ctx context.Context) error {
	cmd, ended := exec.Command(h.mayfly, "run"), make(chan struct{})
	cmd.Env, cmd.Stderr = h.env, &h.log
	if err := cmd.Start(); err != nil {
		return err
	}
	h.cmd, h.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	return h.until(ctx, "the manager answers", func() (bool, error) {
		select {
		case <-ended:
			return false, fmt.Errorf("the manager ended at its start: %s", h.log.tail(2000))
		default:
		}
		_, err := h.client.Info(ctx)
		return err == nil, nil
	})
}

// kill ends the manager as a crash would.
func (h *host) kill() {
	_ = h.cmd.Process.Kill()
	<-h.ended
}

// stop ends the manager and all that it runs, and removes the directory.
func (h *host) stop() {
	if h.cmd != nil {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-h.ended:
		case <-time.After(20 * time.Second):
			h.kill()
		}
	}
	h.client.Close()
	for range 500 { // the keeper ends when it has nothing to do
		if !h.lives() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	os.RemoveAll(h.dir)
}

// lives reports whether a process of the host's is there.
func (h *host) lives() bool {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	return slices.ContainsFunc(paths, func(path string) bool {
		text, _ := os.ReadFile(path)
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		return bytes.Contains(text, []byte(h.dir)) || bytes.Contains(args, []byte(h.dir))
	})
}

// until waits for a condition that only polling can see.
func (h *host) until(ctx context.Context, what string, ok func() (bool, error)) error {
	for {
		if good, err := ok(); good || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// say runs one of mayfly's commands.
func (h *host) say(ctx context.Context, args ...string) (stdout string, err error) {
	cmd := exec.CommandContext(ctx, h.mayfly, args...)
	cmd.Env = h.env
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("mayfly %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out.String(), nil
}

// resources are what a task asks for.
type resources map[string]any

// submit submits a task that runs a program.
func (h *host) submit(ctx context.Context, id string, r resources, command ...string) error {
	all := resources{"cpu": 1, "memory": h.memory}
	for k, v := range r {
		all[k] = v
	}
	environment := map[string]string{"CUDA_CACHE_DISABLE": "1"}
	for k, v := range h.variables {
		environment[k] = v
	}
	text, err := json.Marshal(map[string]any{"id": id, "command": command, "resources": all, "environment": environment, "timeout": "2m", "max_attempts": 1})
	if err != nil {
		return err
	}
	_, err = h.client.Submit(ctx, text, "")
	return err
}

// result waits for a task's result.
func (h *host) result(ctx context.Context, id string) (queue.Result, error) {
	v, err := h.client.Wait(ctx, id)
	if err != nil {
		reason := ""
		if list, err := h.client.List(context.WithoutCancel(ctx), nil); err == nil {
			for i := range list {
				reason += fmt.Sprintf("; %s is %s %s", list[i].ID, list[i].Status, list[i].Reason)
			}
		}
		return queue.Result{}, fmt.Errorf("no result of %s: %w%s", id, err, reason)
	}
	if v.Result == nil {
		return queue.Result{}, fmt.Errorf("%s has ended without a result", id)
	}
	return *v.Result, nil
}

// runs waits until a task's worker runs.
func (h *host) runs(ctx context.Context, id string) (v manager.View, err error) {
	err = h.until(ctx, id+" runs", func() (bool, error) {
		v, err = h.client.Show(ctx, id)
		if err == nil && v.Result != nil {
			return false, fmt.Errorf("%s has ended already: %s: %s", id, v.Result.Message, v.Result.StderrTail)
		}
		return err == nil && v.Status == manager.Running && v.PID != 0, nil
	})
	return v, err
}

// device shows one of the GPUs.
func (h *host) device(ctx context.Context, uuid string) (gpu.Status, error) {
	o, err := h.client.GPUs(ctx)
	if err != nil {
		return gpu.Status{}, err
	}
	at := slices.IndexFunc(o.GPUs, func(d gpu.Status) bool { return d.UUID == uuid })
	if at < 0 {
		return gpu.Status{}, fmt.Errorf("there is no GPU %q", uuid)
	}
	return o.GPUs[at], nil
}

// free waits until GPUs are, and says how long that took. One of them in quarantine ends the wait. Where only is nil, it waits for all to
// be either free or in quarantine.
func (h *host) free(ctx context.Context, only map[string]gpu.Status) (time.Duration, error) {
	began := time.Now()
	var busy string
	err := h.until(ctx, "all GPUs are free", func() (bool, error) {
		o, err := h.client.GPUs(ctx)
		if err != nil || o.Note != "" {
			return false, errors.Join(err, errors.New(o.Note))
		}
		busy = ""
		for _, d := range o.GPUs {
			_, meant := only[d.UUID]
			switch {
			case only != nil && !meant:
			case only != nil && d.Reason != "":
				return false, fmt.Errorf("GPU %d is in quarantine: %s", d.Index, d.Reason)
			case d.Reason == "" && d.Condition != "free" && d.Condition != "divided":
				busy += fmt.Sprintf("; GPU %d is %s by %v", d.Index, d.Condition, d.Holders)
			}
		}
		return busy == "", nil
	})
	if err != nil {
		err = fmt.Errorf("%w%s", err, busy)
	}
	return time.Since(began).Round(100 * time.Microsecond), err
}

// helpers lists the processes by which the manager speaks to the driver.
func (h *host) helpers() (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if !bytes.HasPrefix(text, []byte("mayfly\x00gpu-helper\x00")) {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(h.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}
