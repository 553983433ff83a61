package keeper

import (
	"os/exec"
	"syscall"
	"testing"
)

// TestStaleStatus has a child with the PID of an orphan that was reaped while programs began: the orphan's status is not the child's. PIDs
// come round in half a minute where there are 32,768 of them and a thousand programs a second, of which each leaves something.
func TestStaleStatus(t *testing.T) {
	t.Parallel()
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	orphan := status{wait: syscall.WaitStatus(77 << 8)}
	s := &server{early: map[int]status{pid: orphan}}
	if st, ok := s.takeEarly(pid); ok {
		t.Errorf("a child that runs has the status %d", st.wait.ExitStatus())
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	s.early[pid] = orphan // of the child itself, now
	if st, ok := s.takeEarly(pid); !ok || st.wait.ExitStatus() != 77 || len(s.early) > 0 {
		t.Errorf("a child that was reaped early has the status %v, %t", st, ok)
	}
}
