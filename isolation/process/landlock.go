package process

import (
	"errors"
	"fmt"
	"os"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// ABI versions of landlock, see landlock(7).
const (
	landlockRefer  = 2 // Linux 5.19: links and renames between directories can be allowed
	landlockScopes = 6 // Linux 6.12: signals and abstract sockets can be kept within a domain
)

// domain makes the ruleset of a program's own landlock domain. Processes of different domains cannot trace each other or
// look through each other's /proc entries, even where they have the same user; the kernel adds that to every domain. Where
// it can, it also keeps signals and abstract sockets within. What may be read and written is the mount namespace's to say.
func domain() (*os.File, error) {
	abi, err := landlock.LandlockGetABIVersion()
	if err != nil {
		return nil, fmt.Errorf("cannot use landlock: %w", err)
	}
	if abi < landlockRefer {
		return nil, errors.New("cannot use landlock: this kernel's would forbid to rename between directories")
	}
	attr := landlock.RulesetAttr{Scoped: landlock.ScopeSignal | landlock.ScopeAbstractUnixSocket}
	if abi < landlockScopes {
		// A ruleset must handle something. Unless it is handled and allowed, this right is denied.
		attr = landlock.RulesetAttr{HandledAccessFS: landlock.AccessFSRefer}
	}
	fd, err := landlock.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot use landlock: %w", err)
	}
	f := os.NewFile(uintptr(fd), "landlock ruleset")
	if attr.HandledAccessFS == 0 {
		return f, nil
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		err = landlock.LandlockAddPathBeneathRule(fd, &landlock.PathBeneathAttr{AllowedAccess: attr.HandledAccessFS, ParentFd: root}, 0)
		unix.Close(root)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot use landlock: %w", err)
	}
	return f, nil
}
