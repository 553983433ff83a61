package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/machine"
	"github.com/mayfly/mayfly/integration/need"
)

// TestUnifiedHost runs the tests of the keeper, the hostile ones included, and of control groups where there are those of version 2 and
// nothing else.
func TestUnifiedHost(t *testing.T) { //nolint:paralleltest // a machine takes all the processors there are
	dir := machine.Dir(t)
	machine.Build(t, true, "worker/keeper", filepath.Join(dir, "keeper.test"))
	machine.Build(t, true, "isolation/cgroup", filepath.Join(dir, "cgroup.test"))
	out, status := machine.Run(t, dir, machine.None, 20*time.Minute, "modprobe loop; "+dir+"/cgroup.test -test.v && "+dir+"/keeper.test -test.v -test.short -test.timeout 18m -test.parallel 4")
	if status != 0 || strings.Count(out, "\nPASS") != 2 {
		t.Errorf("status %d:\n%s\n%s", status, strings.Join(regexp.MustCompile(`(?m)^ *(--- FAIL|panic).*(\n .*)*`).FindAllString(out, -1), "\n"), tail(out, 6000))
	}
	need.Exercised(t, "unified control groups, in a virtual machine")
	t.Logf("%d tests passed", strings.Count(out, "--- PASS"))
	for _, skipped := range regexp.MustCompile(`(?m)^--- SKIP.*\n.*`).FindAllString(out, -1) {
		t.Log(skipped)
	}
}

// TestService installs the unit in a machine that systemd runs, and handles it as administrators do, and worse, while a task runs:
// nothing of that may harm it.
func TestService(t *testing.T) { //nolint:paralleltest // a machine takes all the processors there are
	dir := machine.Dir(t)
	machine.Build(t, false, "", filepath.Join(dir, "mayfly"))
	unit, err := os.ReadFile("../deploy/mayfly.service")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "mayfly.service"), unit, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, status := machine.Run(t, dir, machine.Systemd, 15*time.Minute, fmt.Sprintf(service, filepath.Join(dir, "mayfly"), filepath.Join(dir, "mayfly.service")))
	need.Exercised(t, "unified control groups under systemd, in a virtual machine")
	if status != 0 {
		t.Fatalf("status %d:\n%s", status, tail(out, 60_000))
	}
	for _, want := range []string{
		`check: ok    control groups    unified; limits hold on cpu, cpuset, memory, pids, io`,
		`long: exit 7 1 attempts`,
		`hog: oom null 1 attempts`,
		`pids: 5`,
		`scope while it runs: mayfly-[0-9a-f]{8}-\d+\.scope`,
		`tasks of the scope: infinity`,
		`second keeper's task: none 0 1 attempts`,
		`while the clock jumps: none 0 1 attempts, none 0 1 attempts, exit 7 1 attempts`,
		`left: nothing`,
		`after the keeper's death: none 0 2 attempts`,
		`orphans: 0`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(out) {
			t.Errorf("it does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(tail(out, 60_000))
	}
}

// service is the script: the binary and the unit are filled in.
const service = `
set -eu
trap 'echo "failed in line $LINENO"; journalctl -u mayfly --no-pager | tail -40; cat /var/lib/mayfly/keeper.log' ERR
cp %s /usr/bin/mayfly
cp %s /etc/systemd/system/
mkdir -p /etc/mayfly
printf 'MAYFLY_RESERVED_DISK=1\nMAYFLY_HOST=guest\n' >/etc/mayfly/mayfly.env
systemctl daemon-reload
export MAYFLY_HOST=guest
(set +e; MAYFLY_RESERVED_DISK=1 mayfly check | sed 's/^/check: /')
systemctl start mayfly
outcome() { mayfly show --json "$1" | python3 -c 'import json, sys; v = json.load(sys.stdin)["result"]; print(v["cause"], json.dumps(v["exit_code"]), len(v["attempts"]), "attempts")'; }
scopes() { systemctl list-units --plain --no-legend --no-pager "mayfly-*.scope" | cut -d" " -f1; }

mayfly submit --id long --cpu 0.2 --memory 64MiB --shell 'while ! test -e /dev/shm/never -o -e /srv/go; do sleep 0.1; done; exit 7'
mayfly submit --id hog --cpu 0.2 --memory 64MiB --shell 'dd if=/dev/zero of=/dev/null bs=300M count=1' --wait || true
mayfly submit --id many --cpu 0.2 --memory 64MiB --shell 'cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max; for i in 1 2 3 4 5; do echo began; done | grep -c began | sed "s/^/pids: /"' --wait
until test "$(mayfly ps --json | grep -c '"running"')" = 1; do sleep 0.2; done
echo "scope while it runs: $(scopes)"
echo "tasks of the scope: $(systemctl show --value --property=TasksMax "$(scopes)")"
systemctl restart mayfly
systemctl daemon-reload
systemctl daemon-reexec
systemctl kill --signal=KILL --kill-whom=main mayfly
until systemctl is-active --quiet mayfly && mayfly info >/dev/null 2>&1; do sleep 0.2; done
cp /usr/bin/mayfly /usr/bin/mayfly.new && mv /usr/bin/mayfly.new /usr/bin/mayfly # an upgrade
systemctl restart mayfly
systemctl stop mayfly
systemctl start mayfly
touch /srv/go
mayfly wait long || true
echo "long: $(outcome long)"
echo "hog: $(outcome hog)"
until test -z "$(scopes)"; do sleep 0.2; done

mayfly submit --id second --shell true --wait
echo "second keeper's task: $(outcome second)"
until test -z "$(scopes)"; do sleep 0.2; done
mayfly submit --id clock --cpu 0.2 --memory 64MiB --timeout 10m --shell 'while ! test -e /srv/clock; do sleep 0.1; done; exit 7'
until test "$(mayfly ps --json | grep -c '"running"')" = 1; do sleep 0.2; done
date --set='3 days' >/dev/null
mayfly submit --id ahead --shell true --wait
systemctl restart mayfly
date --set='-6 days' >/dev/null
mayfly submit --id behind --shell true --wait
touch /srv/clock
mayfly wait clock || true
echo "while the clock jumps: $(outcome ahead), $(outcome behind), $(outcome clock)"
until test -z "$(scopes)"; do sleep 0.2; done

find /sys/fs/cgroup -name 'mayfly*' ! -name mayfly.service >/srv/left
pgrep -x sleep >>/srv/left || true
echo "left: $(cat /srv/left | sed 's/^$/nothing/')$(test -s /srv/left || echo nothing)"

rm /srv/go
mayfly submit --id lost --cpu 0.2 --memory 64MiB --shell 'test "$MAYFLY_ATTEMPT" -gt 1 || { setsid -f sleep 1000; sleep 1000; }'
until pgrep -x sleep >/dev/null; do sleep 0.1; done
systemctl kill --signal=KILL --kill-whom=all "$(scopes)"
mayfly wait lost || true
echo "after the keeper's death: $(outcome lost)"
echo "orphans: $(pgrep -c -x sleep || true)"
systemctl stop mayfly
`
