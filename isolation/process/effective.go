package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Missing is a part of the policy that this host does not allow.
type Missing struct {
	Part string
	Err  error
}

// Parts of a policy, as Spawner.Effective names them.
const (
	PartUser    = "own user"
	PartMounts  = "private file system"
	PartIPC     = "private IPC"
	PartNetwork = "network off"
	PartDisk    = "disk limit"
	PartSeccomp = "system call filter"
	PartDomain  = "landlock domain"
	PartRights  = "no new privileges"
)

// Probe finds out what of a policy this host allows, as NewSpawner would.
func Probe(p Policy) (effective []string, missing []Missing, err error) {
	s, err := NewSpawner(1, p)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	return s.Effective(), s.Missing(), nil
}

// look finds out what of the policy can be had.
func (s *Spawner) look() {
	var err error
	lacks := func(part string, err error) { s.missing = append(s.missing, Missing{part, err}) }
	// Mounts need more than these; that is tried.
	if err := capable(unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_CHOWN); err != nil {
		lacks(PartUser, err)
	} else {
		s.changesUser = s.policy.Users.Count > 0
	}
	if err := capable(unix.CAP_SYS_ADMIN); err != nil {
		lacks(PartMounts, err)
	} else {
		s.separates = true
	}
	if err := capable(unix.CAP_NET_ADMIN); err != nil { // for the loopback interface of its own
		lacks(PartNetwork, err)
	} else {
		s.networks = true
	}
	if s.disks = s.separates; s.disks {
		if err := canMakeImages(); err != nil {
			s.disks = false
			lacks(PartDisk, err)
		}
	}
	if s.filter, err = filter(s.key); err != nil {
		lacks(PartSeccomp, err)
	}
	if s.ruleset, err = domain(); err != nil {
		lacks(PartDomain, err)
	}
}

// capable reports which of the capabilities this process lacks.
func capable(need ...int) error {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("cannot find out our capabilities: %w", err)
	}
	for _, c := range need {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return fmt.Errorf("cannot do without capability %d (capabilities(7)), which root has unless a container runs without it", c)
		}
	}
	return nil
}

// confine prepares the calling thread: what belongs to a thread and is inherited is set once, here. Whatever the programs'
// user, they can gain no right by executing something.
func (s *Spawner) confine() error {
	if s.policy.Off {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot forbid new privileges: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	for capability := range uintptr(unix.CAP_LAST_CAP + 1) {
		// Fails for those that this kernel does not know.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
	}
	if !s.separates {
		return nil
	}
	if s.home != nil {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("cannot separate a thread: %w", err)
		}
		return unix.Setns(int(s.home.mounts.Fd()), unix.CLONE_NEWNS)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	if err := view(&s.policy); err != nil {
		return err
	}
	var err error
	s.home, err = here()
	return err
}

// Effective names what of the policy holds.
func (s *Spawner) Effective() []string {
	if s.policy.Off {
		return nil
	}
	parts := []string{PartRights}
	for _, p := range []struct {
		name string
		on   bool
	}{{PartUser, s.changesUser}, {PartMounts, s.separates}, {PartIPC, s.separates}, {PartNetwork, s.separates && s.networks}, {PartDisk, s.disks}, {PartSeccomp, s.filter != nil}, {PartDomain, s.ruleset != nil}} {
		if p.on {
			parts = append(parts, p.name)
		}
	}
	return parts
}

// Missing says what of the policy does not hold on this host, and why.
func (s *Spawner) Missing() []Missing { return s.missing }
