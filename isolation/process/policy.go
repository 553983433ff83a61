package process

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// Policy says what confines every program of a Spawner, beside what the program itself says.
type Policy struct {
	// Off leaves out all of it: programs run as the user who forks them, and see what that user sees.
	Off bool `json:"off,omitempty"`
	// Users are the users to run programs as. Programs that run side by side get different ones as far as there are any.
	Users Users `json:"users"`
	// Hidden are paths that programs do not see: directories appear empty, files unreadable.
	Hidden []string `json:"hidden,omitempty"`
	// Writable are paths that stay writable as far as the program's user may write there. All else that is not the program's
	// own is read-only.
	Writable []string `json:"writable,omitempty"`
}

// Users are user ids from First on, and the groups that go with them.
type Users struct {
	First uint32 `json:"first"`
	Count uint32 `json:"count"`
	// GID and Groups go with a user that exists; with GID 0 the group has the number of the user.
	GID    uint32   `json:"gid,omitempty"`
	Groups []uint32 `json:"groups,omitempty"`
	// Name is the user's, or what programs find as their user's name where there is no such user.
	Name string `json:"name"`
}

// DefaultUsers are in a range of numbers that no distribution and no container manager hands out: see the table of
// https://systemd.io/UIDS-GIDS, where 1879048192 to 2147352575 is unused.
var DefaultUsers = Users{First: 1879048192, Count: 65536, Name: "mayfly"}

// ParseUsers reads a user's name, a number, or a range of numbers "first-last". The empty text is DefaultUsers. Root is
// refused: what is confined to the superuser's account is not confined.
func ParseUsers(text string) (Users, error) {
	if text == "" {
		return DefaultUsers, nil
	}
	wrong := func(why string) (Users, error) {
		return Users{}, fmt.Errorf("%q %s: give a user's name, a number from 1 on, or a range of numbers as 70000-70999", text, why)
	}
	if first, last, ok := strings.Cut(text, "-"); ok {
		a, errA := strconv.ParseUint(first, 10, 32)
		b, errB := strconv.ParseUint(last, 10, 32)
		if errA == nil && errB == nil {
			if a == 0 || b < a || b >= 1<<32-1 {
				return wrong("is no range of users")
			}
			return Users{First: uint32(a), Count: uint32(b - a + 1), Name: DefaultUsers.Name}, nil
		}
	}
	u, err := user.Lookup(text)
	if err != nil {
		n, numeric := strconv.ParseUint(text, 10, 32)
		if numeric != nil || n == 1<<32-1 {
			return wrong("is no user of this host")
		}
		if u, err = user.LookupId(text); err != nil {
			if n == 0 {
				return wrong("is root")
			}
			return Users{First: uint32(n), Count: 1, Name: DefaultUsers.Name}, nil
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return wrong("has no number")
	}
	if uid == 0 {
		return wrong("is root")
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return wrong("has no group")
	}
	users := Users{First: uint32(uid), Count: 1, GID: uint32(gid), Name: u.Username}
	groups, err := u.GroupIds()
	if err != nil {
		return wrong("has no list of groups")
	}
	for _, g := range groups {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return wrong("has a group without number")
		}
		users.Groups = append(users.Groups, uint32(n))
	}
	return users, nil
}

// UserName is the name that programs find for their user; empty where they run as ours.
func (p *Policy) UserName() string {
	if p.Off || os.Geteuid() != 0 {
		return ""
	}
	return p.Users.Name
}

// Of returns the user and group of the n-th program that runs side by side with others.
func (u Users) Of(n int) (uid, gid uint32) {
	uid = u.First + uint32(n)%max(1, u.Count)
	if u.GID != 0 {
		return uid, u.GID
	}
	return uid, uid
}
