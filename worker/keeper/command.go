package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/mayfly/mayfly/isolation/process"
)

// policyName is the variable in the keeper's environment that holds its policy as JSON.
const policyName = "MAYFLY_KEEPER_POLICY"

func readPolicy() (p process.Policy, err error) {
	text := os.Getenv(policyName)
	if text == "" {
		return process.Policy{Off: true}, nil
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, fmt.Errorf("cannot read the policy in %s: %w", policyName, err)
	}
	return p, nil
}

// command runs a command of the host, with the keeper's log as its output, and returns when it has ended. The keeper
// waits for all of its children in one place, so the standard library's way is not open to it.
func (s *server) command(args ...string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	defer null.Close()
	ended := make(chan status, 1)
	// Under the lock, so that it is known before it can have been reaped.
	s.mu.Lock()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Dir: "/", Env: os.Environ(),
		Files: []uintptr{null.Fd(), os.Stderr.Fd(), os.Stderr.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err == nil {
		s.commands[pid] = ended
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	switch st := <-ended; {
	case st.wait.Signaled():
		return fmt.Errorf("%s was killed by signal %d", args[0], st.wait.Signal())
	case st.wait.ExitStatus() != 0:
		return errors.New(args[0] + fmt.Sprintf(" exited with code %d (see the keeper's log)", st.wait.ExitStatus()))
	}
	return nil
}
