package integration

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/machine"
	"github.com/mayfly/mayfly/integration/need"
)

// TestPackagesNeedACompiler has it said before anything is done.
func TestPackagesNeedACompiler(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"make", "git", "objdump"} {
		need.Command(t, command)
	}
	cmd := exec.CommandContext(t.Context(), "make", "-s", "-C", "..", "packages", "DIST="+filepath.Join(t.TempDir(), "dist"))
	cmd.Env = append(os.Environ(), "CC=no-such-compiler")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "cannot make packages without no-such-compiler, ") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestPackages makes the packages twice from the same sources, which must come to the same bytes, looks into them, and handles them in a
// machine that systemd runs as administrators do: they install, upgrade while a task runs, remove while one runs, purge.
func TestPackages(t *testing.T) { //nolint:paralleltest // a machine takes all the processors there are
	for _, command := range []string{"make", "git", "dpkg-deb", "rpm", "objdump"} {
		need.Command(t, command)
	}
	dir := machine.Dir(t)
	one, other := filepath.Join(dir, "one"), filepath.Join(dir, "other", "place")
	sh(t, `mkdir -p "$1" "$(dirname "$2")"`, one, other)
	copySources(t, one)
	sh(t, `cp -a "$1" "$2"`, one, other)
	const makes = `umask $2; make -s -C "$1" packages VERSION=$3 SOURCE_DATE_EPOCH=1750000000`
	sh(t, makes, one, "022", "v1.0.0")
	sh(t, "export TZ=Asia/Tokyo; "+makes, other, "077", "v1.0.0")
	if a, b := read(t, one, "dist/SHA256SUMS"), read(t, other, "dist/SHA256SUMS"); a != b {
		t.Errorf("the same sources make other packages in another place:\n%s\n%s", a, b)
	}
	sh(t, makes, other, "022", "v1.0.0-3-gabcdef0")
	t.Run("contents", func(t *testing.T) { contents(t, filepath.Join(one, "dist")) })

	writeCommands(t, filepath.Join(dir, "commands"))
	script := fmt.Sprintf(packages, one, other, filepath.Join(dir, "commands"))
	out, status := machine.Run(t, dir, machine.Systemd, 20*time.Minute, script)
	if status != 0 {
		t.Fatalf("status %d:\n%s", status, tail(out, 60_000))
	}
	for _, kind := range []string{"deb", "rpm"} {
		need.Exercised(t, "installing, upgrading and removing a ."+kind+" under systemd, in a virtual machine")
	}
	for _, want := range []string{
		`deb installed: enabled active, settings 600 root`,
		// What Docker is to find the manager mounts in mounts that they share.
		`deb service: the host's mounts, new privileges 1, clock 0`,
		`.*ok    control groups .*`,
		`hello from .*`,
		`deb dashboard: Mayfly True \['succeeded'\], \d+ s after the installation began`,
		`deb upgraded: v1\.0\.0-3-gabcdef0, the manager v1\.0\.0-3-gabcdef0, the same worker, settings kept`,
		`deb drained: inactive`,
		`deb long: exit 7 as attempt 1`,
		`deb backup: mayfly/history\.db mayfly/queue\.db`,
		`deb removed while a task ran: nothing`,
		`deb removed, the task was given back: it runs as attempt 1`,
		`deb purged: nothing`,
		`rpm installed: inactive, settings 600 root`,
		`rpm upgraded: v1\.0\.0-3-gabcdef0, the manager v1\.0\.0-3-gabcdef0, the same worker, settings kept`,
		`rpm long: exit 7`,
		`rpm removed while a task ran: /etc/mayfly /etc/mayfly/mayfly\.env\.rpmsave /var/lib/mayfly`,
		`rpm purged: nothing`,
		`source: active`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + ` ?$`).MatchString(out) {
			t.Errorf("it does not say %q", want)
		}
	}
	t.Log(regexp.MustCompile(`deb dashboard: .*`).FindString(out)) // in an emulated machine, ten times slower
	if t.Failed() {
		t.Log(tail(out, 60_000))
	}
}

// contents looks into the packages without installing them.
func contents(t *testing.T, dist string) {
	t.Helper()
	deb := sh(t, `cd "$1" && dpkg-deb -c *.deb | awk '{print $1, $2, $6}' && dpkg-deb -f *.deb`, dist)
	rpm := sh(t, `cd "$1" && rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} .%{FILENAMES}\n]Version: %{VERSION}\nDepends: [%{REQUIRES} ]\n' *.rpm &&
		mkdir -p root && rpm2cpio *.rpm | (cd root && cpio -idmu --quiet --no-absolute-filenames) && cmp root/usr/bin/mayfly files/mayfly`, dist)
	glibc := glibcOf(t, filepath.Join(dist, "files/mayfly"))
	for name, text := range map[string]string{"deb": deb, "rpm": rpm} {
		for _, want := range []string{
			"-rwxr-xr-x root/root ./usr/bin/mayfly",
			"-rw-r--r-- root/root ./usr/lib/systemd/system/mayfly.service",
			"-rw------- root/root ./etc/mayfly/mayfly.env",
			"-rw-r--r-- root/root ./usr/share/bash-completion/completions/mayfly",
			"-rw-r--r-- root/root ./usr/share/doc/mayfly/docs/operations.md",
			"-rwxr-xr-x root/root ./usr/share/doc/mayfly/deploy/rabbitmq/setup.sh",
			"-rw-r--r-- root/root ./usr/share/doc/mayfly/deploy/rabbitmq/definitions.json",
			"Version: 1.0.0",
		} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("the .%s does not say %q:\n%s", name, want, text)
			}
		}
	}
	for text, want := range map[string]string{deb: "Depends: libc6 (>= " + glibc + ")", rpm: "libc.so.6(GLIBC_" + glibc + ")(64bit)"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	linked(t, filepath.Join(dist, "root/usr/share/doc/mayfly"))
	// All that is commented out must be a setting that there is, with a value that may be had.
	settings := regexp.MustCompile(`(?m)^#(MAYFLY_\w+=.*)$`).FindAllStringSubmatch(read(t, "../deploy", "mayfly.env"), -1)
	if len(settings) < 10 {
		t.Errorf("%d settings in mayfly.env", len(settings))
	}
	environment := map[string]string{}
	for _, s := range settings {
		name, value, _ := strings.Cut(s[1], "=")
		environment[name] = value
	}
	accepts(t, environment)
}

// linked looks whether what the documents in a package lead to is there, too.
func linked(t *testing.T, root string) {
	t.Helper()
	documents, _ := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if len(documents) < 10 {
		t.Errorf("only %d documents", len(documents))
	}
	for _, path := range append(documents, filepath.Join(root, "README.md"), filepath.Join(root, "CHANGELOG.md")) {
		dir, name := filepath.Split(path)
		for _, link := range regexp.MustCompile(`\]\(([^)\s#]+)`).FindAllStringSubmatch(read(t, dir, name), -1) {
			if _, err := os.Stat(filepath.Join(dir, link[1])); err != nil && !strings.Contains(link[1], "://") {
				t.Errorf("%s leads to %s, which is not in the package", name, link[1])
			}
		}
	}
}

// glibcOf is the version of the C library that a binary needs.
func glibcOf(t *testing.T, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	newest, minor := "", -1
	for _, s := range symbols {
		var n int
		if _, err := fmt.Sscanf(s.Version, "GLIBC_2.%d", &n); err == nil && n > minor {
			newest, minor = strings.TrimPrefix(s.Version, "GLIBC_"), n
		}
	}
	return newest
}

// sh runs a script with arguments and returns what it prints.
func sh(t *testing.T, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-euc", script, "sh"}, args...)...)
	cmd.Stderr = &strings.Builder{}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s%s", err, script, out, cmd.Stderr)
	}
	return string(out)
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeCommands writes what the documents say to files of a folder.
func writeCommands(t *testing.T, dir string) {
	t.Helper()
	install, operations := "install.md", "operations.md"
	removal := strings.SplitAfter(commandsIn(t, install, "### Removing"), "\n")
	rpm := strings.SplitAfter(commandsIn(t, install, "### RHEL, Fedora, SUSE"), "\n")
	files := map[string]string{
		"deb-install": commandsIn(t, install, "### Debian, Ubuntu"),
		"rpm-install": rpm[0], "rpm-start": rpm[1],
		"settings": adapted(t, commandsIn(t, install, "### Settings"), "MAYFLY_AMQP_URL=amqp://user:password@broker:5672/", "MAYFLY_RESERVED_DISK=1\nMAYFLY_HOST=guest"),
		"first":    commandsIn(t, install, "it exits with 1 where something is."),
		"drain":    commandsIn(t, operations, "## Draining a host"), "return": commandsIn(t, operations, "When the host is to work again:"),
		"backup": commandsIn(t, operations, "## Backup"),
		"source": adapted(t, commandsIn(t, install, "## From source"), "make build", "cp dist/files/mayfly mayfly"),
	}
	for name, line := range map[string]string{"upgrade": commandsIn(t, install, "### Upgrading"), "remove": removal[0], "purge": removal[1]} {
		deb, rpm, _ := strings.Cut(line, "# or: ")
		files["deb-"+name], files["rpm-"+name] = deb+"\n", rpm
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// packages is the script: the folders that have dist/ with the packages of the first version and of the second are filled in, and that of
// the documented commands.
const packages = `
set -eu
trap 'echo "failed in line $LINENO"; tail -20 /srv/log; journalctl -u mayfly --no-pager | tail -40' ERR
one=%s two=%s commands=%s
# Whatever the host has of it.
rm -rf /usr/sbin/policy-rc.d /srv/go /etc/mayfly /var/lib/mayfly /usr/bin/mayfly /lib/systemd/system/mayfly.service
rm -f /lib/systemd/system-generators/* # for each daemon-reload they take seconds in here
cd /srv
# A database of what is depended upon alone: dpkg reads all of it each time, and that of the host is slow to read from in here.
mkdir -p dpkg/info dpkg/updates dpkg/triggers
dpkg-query -s libc6 init-system-helpers >dpkg/status
export DPKG_ADMINDIR=/srv/dpkg
sudo() { "$@"; }
dpkg() { command dpkg --force-unsafe-io "$@" >>/srv/log 2>&1; }
rpm() { command rpm --dbpath /srv/rpm --nodeps "$@" >>/srv/log 2>&1; }
# What the documents say, where the packages are.
documented() { cd "$2"; . "$commands/$1"; cd /srv; }
active() { systemctl is-active mayfly || true; }
settings() { stat -c 'settings %%a %%U' /etc/mayfly/mayfly.env; }
worker() { mayfly ps --json 2>/dev/null | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
running() { until test -n "$(worker)"; do sleep 0.2; done; worker; }
long() { mayfly submit --id "$1" --cpu 0.1 --memory 64MiB --shell 'while ! test -e /srv/go; do sleep 0.1; done; exit 7' >/dev/null; }
same() { test "$1" = "$(running)" && echo "the same worker" || echo "worker $1 is not $(worker)"; }
kept() { grep -q ^MAYFLY_HOST=guest /etc/mayfly/mayfly.env && echo "settings kept"; }
attempt() { mayfly show --json "$1" | sed -n 's/^ *"attempt": *\([0-9]*\).*/\1/p' | tail -1; }
upgraded() { echo "$(mayfly version), the manager $(mayfly info --json | sed -n 's/.*"version": *"\(.*\)".*/\1/p'), $(same "$1"), $(kept)"; }
outcome() { mayfly wait "$1" >/dev/null 2>&1 && echo "exit 0" || echo "exit $?"; }
# What there is of it, but for the files that are named by "known".
left() {
	{
		{ cat files; find /etc /run /var/lib /lib/systemd/system -xdev -name '*mayfly*'; } | sort -u | while read -r f; do if [ -e "$f" ] || [ -L "$f" ]; then echo "$f"; fi; done
		find /sys/fs/cgroup -name '*mayfly*'
		grep mayfly /proc/self/mountinfo
		pgrep -x mayfly
		pgrep -f 'srv/go'
		systemctl list-units --all --plain --no-legend 'mayfly*'
	} | grep -v "$known" | tr '\n' ' ' || true
}
said() { test -n "$1" && echo "$1" || echo nothing; }

# What a browser gets by the socket: the page, its script, and the first task.
dashboard() {
	python3 - <<-'END'
		import http.client, json, re, socket
		def get(path):
		    c = http.client.HTTPConnection("localhost")
		    c.sock = socket.socket(socket.AF_UNIX)
		    c.sock.connect("/run/mayfly/mayfly.sock")
		    c.request("GET", path)
		    return c.getresponse().read().decode()
		page = get("/")
		script = get("/" + re.search(r'src="(.*?)"', page)[1])
		print(re.search("<title>(.*)</title>", page)[1], len(script) > 1000, [t["result"]["state"] for t in json.loads(get("/v1/tasks?status=ended&limit=10"))])
	END
}

began=$SECONDS
documented deb-install $one
echo "deb installed: $(systemctl is-enabled mayfly) $(active), $(settings)"
status=/proc/$(systemctl show --property MainPID --value mayfly)
echo "deb service: $(readlink $status/task/*/ns/mnt | grep -qxF "$(readlink /proc/1/ns/mnt)" && echo "the host's mounts"), new privileges $(sed -n 's/^NoNewPrivs:\t//p' $status/status), clock $((0x$(sed -n 's/^CapBnd:\t//p' $status/status) >> 25 & 1))"
command dpkg -L mayfly | grep mayfly >files
documented settings /srv
documented first /srv
echo "deb dashboard: $(dashboard), $((SECONDS - began)) s after the installation began"
long long
pid=$(running)
documented deb-upgrade $two
echo "deb upgraded: $(upgraded $pid)"
documented drain /srv &
until mayfly info --json 2>/dev/null | grep -q '"draining"'; do sleep 0.2; done
touch go
wait $!
rm go
until [ "$(active)" != deactivating ]; do sleep 0.1; done # it closes the API a moment before
echo "deb drained: $(active)"
documented return /srv
echo "deb long: $(outcome long) as attempt $(attempt long)"
long left
running >/dev/null
documented backup /srv
echo "deb backup: $(tar -tf mayfly-backup.tar.gz | grep 'db$' | sort | tr '\n' ' ')"
known='^/etc\|^/var/lib'
documented deb-remove /srv
echo "deb removed while a task ran: $(said "$(left)")"
export MAYFLY_SOCKET=/srv/socket PATH=$PATH:$two/dist/files
MAYFLY_HOST=guest MAYFLY_DRAIN_TIMEOUT=1ms mayfly run 2>log2 &
running >/dev/null
echo "deb removed, the task was given back: it runs as attempt $(attempt left)"
kill $!
wait $! || true
unset MAYFLY_SOCKET
known=' '
documented deb-purge /srv
echo "deb purged: $(said "$(left)")"

known='^/var/lib/mayfly/\|^ *$'
documented rpm-install $one
echo "rpm installed: $(active), $(settings)"
command rpm --dbpath /srv/rpm -ql mayfly | grep mayfly >files
documented rpm-start /srv
documented settings /srv
long long
pid=$(running)
documented rpm-upgrade $two
echo "rpm upgraded: $(upgraded $pid)"
touch go
echo "rpm long: $(outcome long)"
rm go
long left
running >/dev/null
documented rpm-remove /srv
echo "rpm removed while a task ran: $(said "$(left)")"
documented rpm-purge /srv
echo "rpm purged: $(said "$(left)")"
documented source $one
echo "source: $(active)"
`
