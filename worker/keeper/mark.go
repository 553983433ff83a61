package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// markName is the variable by which a worker's processes are found where there are no control groups: its value is the
// mark of the keeper's directory followed by the program's id.
const markName = "MAYFLY_WORKER"

// Name is a short name for a state directory, which tells what belongs to it from what belongs to others.
func Name(dir string) string { return markOf(dir)[:8] }

// markOf is the first part of the marks of all programs of a keeper in dir, and of the name of its control groups. The path is not enough: in a container beside us, whose
// processes we see, it may be the same one, of another directory.
func markOf(dir string) string {
	name := []byte(dir)
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) == nil {
		name = fmt.Appendf(name, "\x00%d", st.Ino) // not the device: its number may be another one after a boot
	}
	sum := sha256.Sum256(name)
	return hex.EncodeToString(sum[:4]) + "/"
}

// markedProcesses finds the processes that began with a mark with this beginning in their environment, or are in the
// session of one of the leaders; but not ourselves.
func markedProcesses(mark string, exact bool) []int {
	want := []byte(markName + "=" + mark)
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []int
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(name)
		if err != nil {
			continue // gone, or not ours
		}
		for variable := range bytes.SplitSeq(env, []byte{0}) {
			if exact && bytes.Equal(variable, want) || !exact && bytes.HasPrefix(variable, want) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// marked finds the processes of a program, its leader aside.
func (s *server) marked(id string) []int { return markedProcesses(s.mark+id, true) }

// killMarked kills what an ended program has left, by session and mark, until nothing is found.
func (s *server) killMarked(p *program) error {
	return killAll(emptyLimit, func() []int {
		if syscall.Kill(-p.pid, syscall.SIGKILL) == nil {
			// The group of the reaped leader still has members; they show below or are gone at the next look.
			return append(s.marked(p.id), -p.pid)
		}
		return s.marked(p.id)
	})
}

// killAll kills what find finds until it finds nothing. Negative numbers are process groups, which find has dealt with.
func killAll(limit time.Duration, find func() []int) error {
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		found := find()
		if len(found) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return &stuckError{found}
		}
		for _, pid := range found {
			if pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		<-time.After(pause)
	}
}

// stuckError names processes that do not die.
type stuckError struct{ pids []int }

func (e *stuckError) Error() string {
	text := "cannot kill the processes"
	for _, pid := range e.pids {
		text += " " + strconv.Itoa(pid)
	}
	return text
}
