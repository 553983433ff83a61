package broker

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// enter prepares the private mount namespace and becomes the given program. It runs as "sh -c enter sh ROOT DATA ARGS...".
const enter = `set -e
root=${1%/}; data=$2; shift 2
mount --make-rprivate /
for d in etc lib log; do
	case $d in
		etc) at=$root/etc/rabbitmq ;;
		lib) at=$root/var/lib/rabbitmq ;;
		log) at=$root/var/log/rabbitmq ;;
	esac
	mkdir -p "$at"
	mount --bind "$data/$d" "$at"
done
if [ -n "$root" ]; then
	mount --bind /dev "$root/dev"
	mount --bind /tmp "$root/tmp" # for files that a tool is to read
	# A minimal tree may not know localhost.
	[ -e "$root/etc/hosts" ] || : >"$root/etc/hosts"
fi
mount --bind "$data/hosts" "$root/etc/hosts" # nodes of a cluster know each other from here
mount -t proc proc "$root/proc"
cd /
exec chroot "${root:-/}" "$@"`

// command returns a command that runs args as the broker's user would: in new namespaces, below the broker's root, with
// its folders and environment, in its own network where it has one. It dies with the thread that starts it.
func (b *Broker) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"/bin/sh", "-c", enter, "sh", b.root, b.data}, args...)
	if b.network != "" {
		args = append([]string{"/usr/bin/nsenter", "--net=" + b.network}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = b.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd
}

// environment is the whole environment of the node and of its tools.
func (b *Broker) environment() []string {
	kernel := "-kernel inet_dist_use_interface {" + strings.ReplaceAll(b.ip, ".", ",") + "}"
	if b.network != "" {
		kernel += fmt.Sprintf(" net_ticktime %d", int(tick.Seconds()))
	}
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/var/lib/rabbitmq",
		"LANG=C.UTF-8",
		"ERL_EPMD_PORT=" + strconv.Itoa(b.ports.epmd),
		"ERL_EPMD_ADDRESS=" + b.ip,
		"RABBITMQ_NODENAME=" + b.node,
		"RABBITMQ_NODE_IP_ADDRESS=" + b.ip,
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(b.ports.amqp),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(b.ports.dist),
		"RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia",
		"RABBITMQ_LOG_BASE=/var/log/rabbitmq",
		"RABBITMQ_CONFIG_FILE=/etc/rabbitmq/rabbitmq.conf",
		"RABBITMQ_ENABLED_PLUGINS_FILE=/etc/rabbitmq/enabled_plugins",
		// Two schedulers that do not spin and small allocators: many brokers share few cores.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none " +
			kernel,
		"RABBITMQ_CTL_ERL_ARGS=+S 1:1 +sbwt none",
	}
}

// process is a running node.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and been waited for
	err  error         // valid once done is closed
}

// launch starts a command on a thread of its own, which lives until the command has ended: the parent death signal
// belongs to the thread that started the child, not to the process.
func launch(cmd *exec.Cmd, output io.Writer) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = output, output
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", cmd.Args[0], err)
	}
	return p, nil
}

// sbin returns the path, below the broker's root, of one of the server's programs.
func (b *Broker) sbin(name string) string { return filepath.Join(b.server, "sbin", name) }
