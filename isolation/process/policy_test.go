package process

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseUsers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Users{
		"":            DefaultUsers,
		"70000-70009": {First: 70000, Count: 10, Name: "mayfly"},
		"123456789":   {First: 123456789, Count: 1, Name: "mayfly"},
	} {
		if got, err := ParseUsers(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	nobody, err := ParseUsers("nobody")
	if err != nil || nobody.Name != "nobody" || nobody.First == 0 || nobody.GID == 0 || nobody.Count != 1 {
		t.Errorf("nobody: %+v, %v", nobody, err)
	}
	for text, want := range map[string]string{"root": "is root", "0": "is root", "0-5": "is no range", "9-5": "is no range",
		"70000-4294967295": "is no range", "no such user": "is no user", "-1": "is no user", "4294967295": "is no user"} {
		if got, err := ParseUsers(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestUsersOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		users    Users
		n        int
		uid, gid uint32
	}{
		{Users{First: 100, Count: 3}, 0, 100, 100},
		{Users{First: 100, Count: 3}, 2, 102, 102},
		{Users{First: 100, Count: 3}, 4, 101, 101},
		{Users{First: 100, Count: 1, GID: 7}, 9, 100, 7},
	} {
		if uid, gid := tt.users.Of(tt.n); uid != tt.uid || gid != tt.gid {
			t.Errorf("%+v of %d: %d, %d", tt.users, tt.n, uid, gid)
		}
	}
}
