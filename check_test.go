package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/isolation/container"
	"github.com/mayfly/mayfly/isolation/process"
)

// wrong are the details of findings that are not OK.
func wrong(list []finding) string {
	var said []string
	for _, f := range list {
		if !f.OK {
			if f.Remedy == "" {
				said = append(said, "NO REMEDY")
			}
			said = append(said, f.Detail)
		}
	}
	return strings.Join(said, "\n")
}

func TestCheckUsers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passwd, subuid := filepath.Join(dir, "passwd"), filepath.Join(dir, "subuid")
	if err := errors.Join(os.WriteFile(passwd, []byte("root:x:0:0::/:/bin/sh\nalice:x:70500:70500::/:/bin/sh\nodd\n"), 0o600), os.WriteFile(subuid, []byte("bob:100000:65536\nodd:x:y\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		users process.Users
		want  string
	}{
		{process.DefaultUsers, ""},
		{process.Users{First: 70000, Count: 1000}, "alice has the numbers 70500 to 70500"},
		{process.Users{First: 90000, Count: 20000}, "bob has the numbers 100000 to 165535"},
		{process.Users{First: 165536, Count: 1000}, ""},
		{process.Users{First: 70500, Count: 1, Name: "alice"}, ""}, // whom somebody named
		{process.Users{First: 70500, Count: 1, Name: "alice", GID: 4}, "as good as root"},
	} {
		if got := wrong(checkUsers(&process.Policy{Users: tt.users}, passwd, subuid)); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %q, want %q", tt.users, got, tt.want)
		}
	}
}

func TestCheckClock(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]func(*unix.Timex) (int, error){
		"within 7 ms": func(x *unix.Timex) (int, error) { x.Maxerror = 7000; return unix.TIME_OK, nil },
		"nobody says": func(*unix.Timex) (int, error) { return unix.TIME_ERROR, nil },
		"deadlines":   func(x *unix.Timex) (int, error) { x.Status = unix.STA_UNSYNC; return unix.TIME_OK, nil },
		"cannot be":   func(*unix.Timex) (int, error) { return 0, unix.EPERM },
	} {
		f := checkClock(answer)
		if !f.OK || !strings.Contains(f.Detail, want) || strings.Contains(f.Detail, "nobody") != (f.Remedy != "") {
			t.Errorf("%+v, want %q", f, want)
		}
	}
}

func TestCheckFileSystem(t *testing.T) {
	t.Parallel()
	for kind, bad := range map[int64]bool{unix.EXT4_SUPER_MAGIC: false, unix.XFS_SUPER_MAGIC: false, unix.BTRFS_SUPER_MAGIC: false, unix.OVERLAYFS_SUPER_MAGIC: false, unix.TMPFS_MAGIC: true, unix.NFS_SUPER_MAGIC: true} {
		if (unfit(kind) != "") != bad {
			t.Errorf("%x: %q", kind, unfit(kind))
		}
	}
}

func TestCheckSetup(t *testing.T) {
	t.Parallel()
	cdi := t.TempDir()
	described := t.TempDir()
	if err := os.WriteFile(filepath.Join(described, "nvidia.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := func(change func(*container.Setup)) *container.Setup {
		s := &container.Setup{Version: "28", Groups: "systemd", Runtimes: []string{"runc"}, Runtime: "runc"}
		change(s)
		return s
	}
	for _, tt := range []struct {
		setup *container.Setup
		gpus  bool
		want  string
	}{
		{good(func(*container.Setup) {}), false, ""},
		{good(func(*container.Setup) {}), true, "neither a description of them (CDI) nor the runtime nvidia"},
		{good(func(s *container.Setup) { s.CDI = []string{cdi} }), true, "neither a description"},
		{good(func(s *container.Setup) { s.CDI = []string{cdi, described} }), true, ""},
		{good(func(s *container.Setup) { s.CDI, s.Devices = []string{cdi}, []string{"nvidia.com/gpu=0"} }), true, ""},
		{good(func(s *container.Setup) { s.Runtimes = []string{"nvidia", "runc"} }), true, ""},
		{good(func(s *container.Setup) { s.Runtimes = []string{"crun"} }), false, "runc is not there"},
		{good(func(s *container.Setup) {
			s.Warnings = []string{"WARNING: No memory limit support", "WARNING: bridge-nf-call-iptables is disabled"}
		}), false, "No memory limit support"},
	} {
		if got := wrong(judgeSetup(tt.setup, tt.gpus)); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) || strings.Contains(got, "NO REMEDY") || strings.Contains(got, "bridge") {
			t.Errorf("%+v: %q, want %q", *tt.setup, got, tt.want)
		}
	}
}

func TestCheckSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	closed, open := file("closed", 0o600), file("open", 0o644)
	for name, c := range map[string]*config{"AMQP_KEY": {AMQPKey: open, TokenFile: closed}, "TOKEN_FILE": {TokenFile: open}, "TLS_KEY": {TLSKey: open}, "REGISTRY_AUTH": {RegAuth: open}, "AMQP_URL_FILE": {AMQPURLFile: open}} {
		list := slices.DeleteFunc(checkSecrets(c), func(f finding) bool { return strings.Contains(f.Detail, "mayfly.env") })
		if got := wrong(list); got != fmt.Sprintf("others may read or change %s (-rw-r--r--)", open) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := wrong(checkSecrets(&config{TLSKey: dir + "/none"})); !strings.Contains(got, "cannot look at MAYFLY_TLS_KEY") {
		t.Errorf("a file that is not there: %q", got)
	}
}
