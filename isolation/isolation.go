// Package isolation runs one program inside limits and leaves nothing behind.
//
// # Theory of operation
//
// A [Spec] says what to run and within which bounds; a [Sandbox] runs it and returns an [Exit], a value that says how the
// program ended, by the kernel's own word. "The program failed" is an Exit; "we failed" is an error. A sandbox may
// outlive the process that uses it: what it still holds is listed by Held after a restart and joined again by Run with
// the same id, and an exit is kept until it is released.
//
// The package knows nothing of tasks, queues or GPUs. The folders below it hold one mechanism each.
package isolation

import (
	"context"
	"errors"
	"time"
)

// Spec is one program to run, once.
type Spec struct {
	// ID is unique among the programs that a sandbox holds; it names directories and cgroups: 1 to 200 bytes of
	// A-Z a-z 0-9 . _ : @ + = -, beginning with a letter or a digit.
	ID string `json:"id"`
	// Args is the argument vector; Args[0] is looked up in the PATH of Env when it holds no slash.
	Args []string `json:"args"`
	// Env is the whole environment as "KEY=value"; nothing is inherited.
	Env []string `json:"env"`
	// Dir is the working directory.
	Dir string `json:"dir"`
	// Stdin is the path of a file, or empty for /dev/null.
	Stdin string `json:"stdin,omitempty"`
	// Stdout and Stderr are paths of files to create, with the directory in which they lie, as soon as there is output. They may be the same path.
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// OutputMax is the most bytes kept of each of them; what is beyond is read and dropped, and a notice of its size ends
	// the file. It must be positive.
	OutputMax int64 `json:"output_max"`
	// Timeout is the running time after which the program is stopped; 0 means none.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Grace is the time between SIGTERM and SIGKILL when the program is stopped; 0 kills at once.
	Grace time.Duration `json:"grace"`
	// Image names a container image to run the program in, for a sandbox that can; Args and Dir may then be empty, for
	// what the image says.
	Image string `json:"image,omitempty"`
	// Private is the path of a directory that is the program's own: the only place, beside temporary directories, that it may write to.
	// The program sees it under this very path, with the directories Dirs in it. A sandbox that gives the program no file system
	// of its own for it makes it on the host (see Lay); what is there after the end is removed by the caller.
	Private string `json:"private,omitempty"`
	// Dirs are the names of directories in Private.
	Dirs []string `json:"dirs,omitempty"`
	// Carry is the path of a file below Private that is to be at hand for the caller after the end, if the program leaves one:
	// a sandbox may keep the rest of Private to itself. CarryMax is its largest size in bytes.
	Carry    string `json:"carry,omitempty"`
	CarryMax int64  `json:"carry_max,omitempty"`
	// Limits bound the program with all its descendants.
	Limits Limits `json:"limits"`
	// NoNetwork leaves the program a network of its own, with nothing but a loopback interface.
	NoNetwork bool `json:"no_network,omitempty"`
	// Devices are device files that the program sees beside the ordinary ones of a sandbox, and may read and write whatever their
	// mode on the host. They are for processes; without a private file system the program finds those of the host.
	Devices []Device `json:"devices,omitempty"`
	// Closed are devices that the program may not open, by whatever name it finds or makes for them. They are for processes.
	// A sandbox that cannot keep a program from them does not run it.
	Closed []Device `json:"closed,omitempty"`
	// CDI are the devices of a container, each by its full name in the Container Device Interface: "vendor.com/class=name". They
	// are for containers, which have no other devices.
	CDI []string `json:"cdi,omitempty"`
	// Note is kept by the sandbox and returned by Held. It is the caller's own.
	Note []byte `json:"note,omitempty"`
	// Joins says that the program began in an earlier life, and is joined only. What is here may not be all that it was begun with: one
	// that the sandbox does not hold any more is lost, not begun anew.
	Joins bool `json:"-"`
}

// Device is a device file. It is its number that says which device that is.
type Device struct {
	// Path is absolute, without links or dots in it. Where only the number counts it may be empty.
	Path string `json:"path,omitempty"`
	// Block says that it is a block device, not a character device.
	Block bool `json:"block,omitempty"`
	// Major is below 4096, Minor below 1048576, as Linux counts them.
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
}

// Limits bound a program with all its descendants. Zero is no limit of that kind.
type Limits struct {
	// MilliCPU is processor time per time, in thousandths of a core.
	MilliCPU int64 `json:"milli_cpu,omitempty"`
	// Cores are the numbers of the processors to run on, as Linux counts them; empty for all.
	Cores []int `json:"cores,omitempty"`
	// Memory is in bytes, with no swap beside it. What is over it is killed.
	Memory int64 `json:"memory,omitempty"`
	// PIDs counts processes and threads.
	PIDs int64 `json:"pids,omitempty"`
	// Disk bounds what the program writes to Private and to its temporary directories, in bytes. With 0 these lie in memory,
	// within half of Memory.
	Disk int64 `json:"disk,omitempty"`
}

// Stop says why a sandbox stopped a program.
type Stop string

// The reasons to stop a program.
const (
	NotStopped Stop = ""
	TimedOut   Stop = "timeout"
	Asked      Stop = "asked"
)

// Exit says how a program ended.
type Exit struct {
	// StartError is why the program could not be started, or empty. When set, Code and Signal mean nothing.
	StartError string `json:"start_error,omitempty"`
	// Lost says that the sandbox died with the program running: it was killed and its status is not known.
	Lost bool `json:"lost,omitempty"`
	// Code is the exit code when Signal is 0.
	Code int `json:"code"`
	// Signal is the number of the signal that killed the program, or 0.
	Signal int `json:"signal,omitempty"`
	// Stopped says whether and why the sandbox had begun to stop the program before it ended.
	Stopped Stop `json:"stopped,omitempty"`
	// Killed says that the grace had run out and SIGKILL was sent.
	Killed     bool      `json:"killed,omitempty"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	// CPU is user and system time of the program and of its descendants that were waited for.
	CPU time.Duration `json:"cpu"`
	// MemoryPeak is in bytes; without a memory cgroup, that of the largest process among them.
	MemoryPeak int64 `json:"memory_peak"`
	// OOMKills counts the processes of the program that the kernel killed for want of memory, by the count of its control group. The
	// program may have survived that.
	OOMKills int64 `json:"oom_kills,omitempty"`
	// HostOOM says that the program was not at its memory limit when they were: there was no memory left on the host.
	HostOOM bool `json:"host_oom,omitempty"`
	// DiskFull says that the program's private file system had no room left when the program ended, as Full has it.
	DiskFull bool `json:"disk_full,omitempty"`
	// CarryError is why the file to be carried out was not, in words that follow "the file was ignored: "; empty where there was none.
	CarryError string `json:"carry_error,omitempty"`
	// Left names in one sentence what of the program could not be removed, or is empty. Its limits stay lent to that.
	Left string `json:"left,omitempty"`
	// StdoutDropped and StderrDropped count the bytes beyond OutputMax.
	StdoutDropped int64 `json:"stdout_dropped,omitempty"`
	StderrDropped int64 `json:"stderr_dropped,omitempty"`
	// OutputError is why output within OutputMax was not kept: the host's disk is full, say. Empty where there was no such fault.
	OutputError string `json:"output_error,omitempty"`
}

// Started is what is known once a program runs.
type Started struct {
	PID int       `json:"pid"`
	At  time.Time `json:"at"`
}

// Held is a program that a sandbox still holds: running, or ended and not yet released.
type Held struct {
	ID      string
	Note    []byte
	Started Started
	// Exit is nil while the program runs.
	Exit *Exit
	// Released says that the program was released, and is held only for what Exit.Left names.
	Released bool
}

// ErrDetached says that the sandbox was let go of while the program ran on.
var ErrDetached = errors.New("detached from the sandbox: the program runs on")

// ErrKill as the cause of the end of Run's context has the program killed at once, without its grace.
var ErrKill = errors.New("killed at once")

// Sandbox runs programs.
type Sandbox interface {
	// Run runs spec's program and returns when it has ended and nothing of it is left. A program that the sandbox already
	// holds under spec.ID is joined instead of started, with only the ID of spec read (see Spec.Joins). started (when not nil) is called
	// once, before Run returns, if the program runs. When ctx ends the program is stopped (SIGTERM, its grace, SIGKILL)
	// and Run still returns its true exit. An error means that the sandbox failed, not the program; ErrDetached that
	// it was detached. After an exit the sandbox holds it until Release. spec is not written to, nor kept after the return.
	Run(ctx context.Context, spec *Spec, started func(Started)) (*Exit, error)
	// Held lists what the sandbox holds.
	Held(ctx context.Context) ([]Held, error)
	// Release lets go of an ended program's exit. Unknown ids are ignored.
	Release(id string)
}
