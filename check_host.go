package main

import (
	"bufio"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/api/spans"
	"github.com/mayfly/mayfly/internal/secret"
	"github.com/mayfly/mayfly/isolation/process"
)

// checkState looks at the state directory, or at what it will be made in, which it returns.
func checkState(c *config) (list []finding, existing string) {
	const what = "state directory"
	existing = c.StateDir
	for unix.Access(existing, unix.F_OK) != nil && existing != "/" {
		existing = filepath.Dir(existing)
	}
	if unix.Access(existing, unix.W_OK) != nil {
		return []finding{{What: what, Detail: "cannot write to " + existing,
			Remedy: fmt.Sprintf("mkdir -p %s && chown %d %s, or set MAYFLY_STATE_DIR", c.StateDir, os.Geteuid(), c.StateDir)}}, ""
	}
	if existing == c.StateDir {
		if err := ownDirectory(existing); err != nil {
			return []finding{{What: what, Detail: err.Error(), Remedy: "see there, or set MAYFLY_STATE_DIR"}}, ""
		}
	}
	list = []finding{{What: what, OK: true, Detail: c.StateDir}}
	var st unix.Statfs_t
	if unix.Statfs(existing, &st) == nil {
		if why := unfit(st.Type); why != "" {
			list = append(list, finding{What: what, Detail: c.StateDir + " " + why, Remedy: "set MAYFLY_STATE_DIR to a directory on a disk of this host"})
		}
	}
	return list, existing
}

// unfit says why a file system does not suit the state directory.
func unfit(kind int64) string {
	switch kind {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return "lies in memory: what is queued and remembered is lost when the host goes down, and output takes memory"
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC:
		return "is on another machine: each host needs one of its own, and its database locks on a disk"
	}
	return ""
}

// checkClock asks the kernel whether anybody keeps the clock right.
func checkClock(adjtimex func(*unix.Timex) (int, error)) finding {
	const what = "clock"
	var t unix.Timex
	state, err := adjtimex(&t)
	switch {
	case err != nil:
		return finding{What: what, OK: true, Detail: "cannot be asked about: " + err.Error()}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		// No failure: in a virtual machine the host may keep it right, unknown to the kernel.
		return finding{What: what, OK: true, Detail: "nobody says that it is right: deadlines, and times in results, are as right as it is",
			Remedy: "timedatectl set-ntp true, or install chrony"}
	}
	return finding{What: what, OK: true, Detail: fmt.Sprintf("synchronised, within %d ms", t.Maxerror/1000)}
}

// serviceSettings is where the service has its settings from.
const serviceSettings = "/etc/mayfly/mayfly.env"

// checkOthers says which settings the service has, and this command has not: it looks at its own.
func checkOthers(file string) []finding {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // there is no service, or it is none of ours
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), "=")
		if _, set := os.LookupEnv(name); ok && !set && strings.HasPrefix(name, "MAYFLY_") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []finding{{What: "configuration", OK: true, Detail: fmt.Sprintf("%s sets %s for the service; this command was started without", file, strings.Join(names, ", ")),
		Remedy: "systemd-run --quiet --pipe --property=EnvironmentFile=" + file + " mayfly check"}}
}

// checkFiles reads what else a manager reads when it starts.
func checkFiles(c *config) (list []finding) {
	add := func(what string, err error, detail string) {
		if err != nil {
			list = append(list, finding{What: what, Detail: err.Error(), Remedy: "mend what is named"})
		} else {
			list = append(list, finding{What: what, OK: true, Detail: detail})
		}
	}
	if c.Listen != "" {
		add("API by TCP", c.remote().Readable(), "its files can be used; the manager opens "+c.Listen)
	}
	if c.TaskKeys != "" || c.SigningKey != "" {
		_, _, err := c.signing()
		add("signed tasks", err, "the keys can be used")
	}
	if collector, err := spans.FromEnvironment(os.Getenv); err != nil || collector.URL != "" {
		add("traces", err, "spans are sent")
	}
	return list
}

// mighty are groups whose members are as good as root.
var mighty = []string{"root", "wheel", "sudo", "docker", "lxd", "incus-admin", "disk", "kvm", "shadow", "adm"}

// checkUsers looks at who workers run as. passwd and subuid are the files of that name.
func checkUsers(p *process.Policy, passwd, subuid string) []finding {
	const what = "workers' users"
	u := p.Users
	last := u.First + u.Count - 1
	detail := fmt.Sprintf("%d to %d", u.First, last)
	if u.Count == 1 {
		detail = fmt.Sprintf("%s (%d), the same for all: they may reach each other's files where those are shared", u.Name, u.First)
	}
	list := []finding{{What: what, OK: true, Detail: detail}}
	var powerful []string
	for _, gid := range append(slices.Clone(u.Groups), u.GID) {
		if g, err := user.LookupGroupId(strconv.Itoa(int(gid))); err == nil && gid != 0 && slices.Contains(mighty, g.Name) {
			powerful = append(powerful, g.Name)
		}
	}
	if len(powerful) > 0 {
		slices.Sort(powerful)
		list = append(list, finding{What: what, Detail: fmt.Sprintf("%s is in the group %s, which is as good as root", u.Name, strings.Join(slices.Compact(powerful), ", ")),
			Remedy: "set MAYFLY_TASK_USER to a user of its own: useradd --system --shell /usr/sbin/nologin mayfly-task"})
	}
	if u.Count > 1 {
		for _, taken := range append(takenUsers(passwd, 0), takenUsers(subuid, 1)...) {
			if taken.first <= last && taken.first+taken.count-1 >= u.First {
				list = append(list, finding{What: what, Detail: fmt.Sprintf("%s has the numbers %d to %d (%s), which are among them", taken.name, taken.first, taken.first+taken.count-1, taken.file),
					Remedy: "set MAYFLY_TASK_USER to a range that is free, as 70000-70999"})
			}
		}
	}
	return list
}

// taken are numbers of users that somebody has.
type taken struct {
	name, file   string
	first, count uint32
}

// takenUsers reads the users of passwd(5), or with ranges the ranges of subuid(5).
func takenUsers(file string, ranges int) (list []taken) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 {
			continue
		}
		t := taken{name: fields[0], file: file, count: 1}
		first, count := fields[2], "1"
		if ranges > 0 {
			first, count = fields[1], fields[2]
		}
		a, errA := strconv.ParseUint(first, 10, 32)
		n, errN := strconv.ParseUint(count, 10, 32)
		if errA == nil && errN == nil && n > 0 {
			t.first, t.count = uint32(a), uint32(n)
			list = append(list, t)
		}
	}
	return list
}

// checkSecrets looks at who else may read what nobody else should.
func checkSecrets(c *config) []finding {
	list := []finding{}
	for _, s := range []struct{ setting, path string }{{"MAYFLY_AMQP_URL_FILE", c.AMQPURLFile}, {"MAYFLY_AMQP_KEY", c.AMQPKey}, {"MAYFLY_TOKEN_FILE", c.TokenFile}, {"MAYFLY_TLS_KEY", c.TLSKey}, {"MAYFLY_SIGNING_KEY", c.SigningKey},
		{"MAYFLY_REGISTRY_AUTH", c.RegAuth}, {"settings", serviceSettings}} {
		info, err := os.Stat(s.path)
		if s.path == "" || err != nil && s.setting == "settings" {
			continue
		}
		f := finding{What: "secrets", OK: true, Detail: s.path}
		if err != nil {
			f.OK, f.Detail, f.Remedy = false, fmt.Sprintf("cannot look at %s=%s: %v", s.setting, s.path, err), "name a file that exists"
		} else if secret.Exposed(info) {
			f.OK, f.Detail, f.Remedy = false, fmt.Sprintf("others may read or change %s (%s)", s.path, info.Mode()), fmt.Sprintf("chown %d %s && chmod 600 %s", os.Geteuid(), s.path, s.path)
		}
		list = append(list, f)
	}
	return list
}
