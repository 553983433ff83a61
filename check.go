package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/gpu/nvidia"
	"github.com/mayfly/mayfly/internal/plain"
	"github.com/mayfly/mayfly/isolation/cgroup"
	"github.com/mayfly/mayfly/isolation/process"
	"github.com/mayfly/mayfly/isolation/systemd"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/tasktype"
)

// finding is one line of the host's self-check.
type finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Remedy says what mends it, where it is not OK.
	Remedy string `json:"remedy,omitempty"`
}

// check looks at the host as `mayfly run` would find it, and prints the remedy for each thing that is wrong.
func check(ctx context.Context, w io.Writer, asJSON bool) (ok bool, err error) {
	var list []finding
	add := func(what string, err error, detail, remedy string) {
		f := finding{What: what, OK: err == nil, Detail: detail}
		if err != nil {
			f.Detail, f.Remedy = err.Error(), remedy
		}
		list = append(list, f)
	}
	c, err := readConfig()
	add("configuration", err, "all settings are in range", `see "mayfly run --help"`)
	list = append(list, checkOthers(serviceSettings)...)
	if err == nil {
		state, existing := checkState(c)
		list = append(list, state...)
		if existing != "" {
			beginning := *c
			beginning.StateDir = existing
			capacity, err := detectCapacity(&beginning)
			add("capacity", err, fmt.Sprintf("%g cores, %s of memory, %s of disk are lent to workers", float64(capacity.MilliCPU)/1000,
				queue.FormatSize(capacity.Memory), queue.FormatSize(capacity.Disk)), "set MAYFLY_CPUS, MAYFLY_MEMORY, MAYFLY_DISK")
			if err := overlent(c); err != nil {
				add("memory", err, "", "lower MAYFLY_MEMORY, or leave it out")
			}
			if err == nil && capacity.Disk == 0 {
				add("disk", fmt.Errorf("%s has no free space beyond MAYFLY_RESERVED_DISK", existing), "", "free some, or lower MAYFLY_RESERVED_DISK")
			}
		}
		types, err := tasktype.Load(c.TypesDir)
		if c.TypesDir != "" {
			n := 0
			if err == nil {
				n = len(types.Types())
			}
			add("task types", err, fmt.Sprintf("%d in %s", n, c.TypesDir), "mend the file that is named")
		}
		list = append(list, checkFiles(c)...)
		list = append(list, checkBroker(ctx, c)...)
		list = append(list, checkSecrets(c)...)
	}
	list = append(list, checkGroups(ctx)...)
	if err == nil {
		list = append(list, checkConfinement(c)...)
		list = append(list, checkGPUs(ctx, c))
		list = append(list, checkContainers(ctx, c)...)
	}
	list = append(list, checkClock(unix.Adjtimex))
	add("kernel", nil, kernel()+", "+runtime.GOARCH, "")

	ok = true
	for _, f := range list {
		ok = ok && f.OK
	}
	return ok, printFindings(w, list, asJSON)
}

// checkGroups looks at what limits hold here.
func checkGroups(ctx context.Context) []finding {
	const what = "control groups"
	if systemd.Booted() && os.Geteuid() == 0 { // as the keeper does
		if err := systemd.Scope(ctx, fmt.Sprintf("mayfly-check-%d.scope", os.Getpid()), "mayfly check"); err != nil {
			return []finding{{What: "systemd", Detail: err.Error(), Remedy: "systemctl status; without a scope of their own, workers do not outlive a restart of the service"}}
		}
	}
	root, err := cgroup.Find(fmt.Sprintf("mayfly-check-%d", os.Getpid()))
	if err != nil {
		return []finding{{What: what, Detail: err.Error(), Remedy: "run as root, as deploy/mayfly.service does, or in a scope with Delegate=yes, or in a container with --privileged or a writable /sys/fs/cgroup; " +
			"without them no limit holds, and processes that hide from their parent are found by session and environment only"}}
	}
	defer root.Close()
	list := []finding{{What: what, OK: true, Detail: fmt.Sprintf("%s; limits hold on %s", root.Mode(), strings.Join(root.Controllers(), ", "))}}
	lacking := root.Lacking()
	for _, part := range slices.Sorted(maps.Keys(lacking)) {
		f := finding{What: "limits on " + part, Detail: lacking[part].Error(), Remedy: "run as root, as deploy/mayfly.service does, or in a scope with Delegate=yes"}
		if root.Mode() != "unified" {
			f.Remedy = "mount the controller, or boot with systemd.unified_cgroup_hierarchy=1"
		}
		// Weights of disk traffic are a courtesy between workers, and few hosts have devices to close; the others are bounds.
		f.OK = part == "io" || part == "blkio" || part == "devices" && len(nvidia.Files(gpuRoot())) == 0
		list = append(list, f)
	}
	return list
}

// checkConfinement looks at how far workers can be confined here.
func checkConfinement(c *config) []finding {
	const what = "confinement"
	policy, err := c.policy()
	if err != nil {
		return []finding{{What: what, Detail: err.Error()}}
	}
	if policy.Off {
		return []finding{{What: what, OK: true, Detail: "off (MAYFLY_SANDBOX=off): workers can do all that the manager can"}}
	}
	if err := passable(c.StateDir, policy); err != nil {
		return []finding{{What: what, Detail: err.Error(), Remedy: "mkdir -p /var/lib/mayfly, and unset MAYFLY_STATE_DIR"}}
	}
	effective, missing, err := process.Probe(policy)
	if err != nil {
		return []finding{{What: what, Detail: err.Error(), Remedy: "set MAYFLY_SANDBOX=off where all tasks are trusted"}}
	}
	list := []finding{{What: what, OK: true, Detail: strings.Join(effective, ", ")}}
	if os.Geteuid() == 0 {
		list = append(list, checkUsers(&policy, "/etc/passwd", "/etc/subuid")...)
	}
	for _, m := range missing {
		list = append(list, finding{What: m.Part, Detail: m.Err.Error(), Remedy: remedies[m.Part]})
	}
	return list
}

// checkGPUs asks the driver what there is.
func checkGPUs(ctx context.Context, c *config) finding {
	f := finding{What: "GPUs", OK: true}
	if len(c.GPUs) == 1 && c.GPUs[0] == "none" {
		f.Detail = "none are lent (MAYFLY_GPUS=none)"
		return f
	}
	host, stop, err := openGPUs(ctx, c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return finding{What: f.What, Detail: err.Error(), Remedy: "set MAYFLY_GPUS"}
	}
	defer stop()
	o := host.Overview(ctx)
	if o.Note != "" {
		f.Detail = o.Note
		if len(nvidia.Files(gpuRoot())) > 0 { // there is a driver after all
			f.OK, f.Remedy = false, "look at what nvidia-smi says; a mayfly that is to find GPUs is built with cgo, and finds libnvidia-ml.so.1 where the system has it, or where MAYFLY_NVML says"
		}
		return f
	}
	f.Detail = fmt.Sprintf("%s (driver %s, CUDA %s)", host.Summary(), o.Driver, o.CUDA)
	for i := range o.GPUs {
		if why := o.GPUs[i].State.Unfit(); why != "" {
			f.OK, f.Remedy = false, "do what the driver wants; till then the GPU is in quarantine"
			f.Detail += fmt.Sprintf("; GPU %d: %s", o.GPUs[i].Index, why)
		}
	}
	return f
}

// remedies say how a host gets a part of the confinement.
var remedies = map[string]string{
	process.PartUser:    "run as root",
	process.PartMounts:  "run as root, with CAP_SYS_ADMIN where that is in a container; Linux 5.12 or later",
	process.PartNetwork: "run as root, with CAP_NET_ADMIN where that is in a container",
	process.PartIPC:     "run as root, with CAP_SYS_ADMIN where that is in a container",
	process.PartDisk:    "apt-get install e2fsprogs; modprobe loop; in a container, --device /dev/loop-control and --device-cgroup-rule 'b 7:* rwm'",
	process.PartSeccomp: "a kernel with CONFIG_SECCOMP_FILTER",
	process.PartDomain:  "Linux 5.19 or later with landlock among the security modules (boot with lsm=landlock,...)",
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func printFindings(w io.Writer, list []finding, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	for _, f := range list {
		mark := "ok  "
		if !f.OK {
			mark = "FAIL"
		}
		if _, err := fmt.Fprintf(w, "%s  %-16s  %s\n", mark, f.What, plain.Line(f.Detail)); err != nil {
			return err
		}
		if f.Remedy != "" {
			if _, err := fmt.Fprintf(w, "      %-16s  remedy: %s\n", "", f.Remedy); err != nil {
				return err
			}
		}
	}
	return nil
}
