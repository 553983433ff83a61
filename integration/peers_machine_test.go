package integration

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/machine"
)

// systemdScript prints the nanoseconds of a task, of plain ones and of transient services, four at a time. The first of each are not counted.
const systemdScript = `
measure() {
	name=$1 count=$2; shift 2
	seq 8 | xargs -P4 -I{} "$@" || exit
	begin=$(date +%s%N)
	seq "$count" | xargs -P4 -I{} "$@" || exit
	echo "$name $((($(date +%s%N) - begin) / count))"
}
measure exec 200 /bin/true
measure systemd-run 40 systemd-run --quiet --wait --collect /bin/true
`

// systemdRun measures systemd-run against plain exec in a virtual machine whose first process is systemd, which tests have nowhere else. The machine is
// emulated: only the ratio means something. One boot is all: rounds are within it.
func systemdRun(b *testing.B) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		absent(b, "qemu-system-x86_64 is not installed: run make setup")
	}
	asRoot(b)
	out, status := machine.Run(b, machine.Dir(b), machine.Systemd, 5*time.Minute, systemdScript)
	took := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(exec|systemd-run) (\d+)\r?$`).FindAllStringSubmatch(out, -1) {
		took[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	if status != 0 || took["exec"] == 0 || took["systemd-run"] == 0 {
		b.Fatalf("status %d: %s", status, out)
	}
	b.Logf("a task took %.1f ms by exec, %.1f ms by systemd-run", took["exec"]/1e6, took["systemd-run"]/1e6)
	for b.Loop() { // measured already
	}
	b.ReportMetric(took["exec"]/took["systemd-run"], "of-exec")
	b.ReportMetric(0, "ns/op")
}
