package integration

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
)

// slurmSettings make one host of four processors, whatever it has, with no accounting, no limits, and the plainest scheduler: least work for each job.
const slurmSettings = `ClusterName=bench
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[3]d
SlurmdPort=%[4]d
AuthType=auth/munge
AuthInfo=socket=%[2]s/munge.socket
SlurmUser=root
SlurmctldPidFile=%[2]s/slurmctld.pid
SlurmdPidFile=%[2]s/slurmd.pid
StateSaveLocation=%[2]s/state
SlurmdSpoolDir=%[2]s/spool
SlurmctldLogFile=%[2]s/slurmctld.log
SlurmdLogFile=%[2]s/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=%[2]s/ended
MailProg=/bin/true
SlurmdParameters=config_overrides
NodeName=%[1]s NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
`

// slurmScript runs what it is made of.
const slurmScript = `cd %[1]s
munged --foreground --key-file=$PWD/munge.key --socket=$PWD/munge.socket --pid-file=$PWD/munged.pid --log-file=$PWD/munged.log --seed-file=$PWD/munge.seed &
until [ -S munge.socket ]; do sleep 0.05; done
slurmctld -D &
slurmd -D &
wait`

// cluster is a controller and a node of Slurm on this host.
type cluster struct {
	b   *testing.B
	dir string
}

// startSlurm starts one, which ends with the benchmark.
func startSlurm(b *testing.B) cluster {
	b.Helper()
	installed(b, "munged", "slurmctld", "slurmd", "sbatch", "salloc", "srun", "sinfo")
	asRoot(b)
	dir, err := os.MkdirTemp("", "mayfly-slurm-") // short: sockets lie in it
	if err != nil {
		b.Fatal(err)
	}
	c := cluster{b, dir}
	b.Cleanup(func() {
		for _, name := range []string{"munged.log", "slurmctld.log", "slurmd.log"} {
			if text, err := os.ReadFile(c.at(name)); err == nil && b.Failed() {
				b.Logf("%s: %s", name, tail(string(text), 3000))
			}
		}
		os.RemoveAll(dir)
	})
	name, err := os.Hostname()
	name, _, _ = strings.Cut(name, ".")
	key := make([]byte, 128)
	_, _ = rand.Read(key) // it never fails
	err = errors.Join(err,
		os.Chmod(dir, 0o755), // the way to a socket must be open to all
		os.Mkdir(c.at("state"), 0o700),
		os.Mkdir(c.at("spool"), 0o755),
		os.WriteFile(c.at("munge.key"), key, 0o400),
		os.WriteFile(c.at("slurm.conf"), fmt.Appendf(nil, slurmSettings, name, dir, broker.Port(b), broker.Port(b)), 0o644))
	if err != nil {
		b.Fatal(err)
	}
	// In a process namespace of their own, whose first process reaps what they orphan, and with which all of them end.
	background(b, "/", []string{"SLURM_CONF=" + c.at("slurm.conf")}, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/bash", "-c",
		fmt.Sprintf(slurmScript, dir))
	until(b, "the node is idle", func() bool {
		out, err := c.command("", "sinfo", "--noheader", "--format=%T")
		return err == nil && strings.TrimSpace(out) == "idle"
	})
	return c
}

func (c cluster) at(name string) string { return filepath.Join(c.dir, name) }

func (c cluster) command(stdin string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "SLURM_CONF="+c.at("slurm.conf"))
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ended counts the jobs that have, by the controller's own list.
func (c cluster) ended() int {
	c.b.Helper()
	text, _ := os.ReadFile(c.at("ended"))
	all := bytes.Count(text, []byte("JobState="))
	if good := bytes.Count(text, []byte("JobState=COMPLETED")); good != all {
		c.b.Fatalf("%d of %d jobs failed: %s", all-good, all, tail(string(text), 500))
	}
	return all
}

// slurmArray makes each task one of an array of jobs.
func slurmArray(b *testing.B) func(int) time.Duration {
	c := startSlurm(b)
	return func(tasks int) time.Duration {
		before := c.ended()
		if out, err := c.command("", "sbatch", fmt.Sprintf("--array=1-%d", tasks), "--output=/dev/null", "--wrap=/bin/true"); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return steady(b, "Slurm", tasks, func() int { return before + tasks - c.ended() })
	}
}

// slurmSteps makes each task a step of one job, which has been given all four processors.
func slurmSteps(b *testing.B) func(int) time.Duration {
	c := startSlurm(b)
	return func(tasks int) time.Duration {
		begin := time.Now()
		if out, err := c.command(numbers(tasks), "salloc", "--quiet", "-n4", "xargs", "-P4", "-n1", "srun", "--quiet", "--overlap", "-n1", "/bin/true"); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return time.Since(begin)
	}
}
