package process

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// room are the namespaces that programs of one place enter, one after the other.
type room struct {
	mounts, ipc *os.File
	// tables are the lists of System V's objects and queues, below 1 where there is none, the directory of POSIX message queues, of the IPC namespace: descriptors.
	tables []int
	queues int
}

// here returns the namespaces of the calling thread.
func here() (*room, error) {
	r := &room{}
	var err error
	if r.mounts, err = os.Open("/proc/thread-self/ns/mnt"); err == nil {
		r.ipc, err = os.Open("/proc/thread-self/ns/ipc")
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("cannot hold a namespace: %w", err)
	}
	return r, nil
}

// newRoom makes namespaces with the parts, the shares and the devices of a program mounted. The calling thread makes them and returns
// home.
func newRoom(p *Private, hidden []string, home *room) (*room, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC); err != nil {
		return nil, fmt.Errorf("cannot make namespaces: %w", err)
	}
	defer func() {
		for kind, f := range map[int]*os.File{unix.CLONE_NEWNS: home.mounts, unix.CLONE_NEWIPC: home.ipc} {
			if err := unix.Setns(int(f.Fd()), kind); err != nil {
				panic(fmt.Sprintf("cannot return to a namespace: %v", err)) // the thread would show programs what is not theirs
			}
		}
	}()
	mounts, nodes := map[string]int{}, map[string]int{}
	defer closeAll(mounts)
	defer closeAll(nodes)
	if len(p.devices) > 0 { // first, for it replaces what others are mounted on
		if err := furnishDevices(p.devices, hidden, nodes); err != nil {
			return nil, err
		}
	}
	for _, d := range p.parts {
		if _, ok := mounts[d.path]; !ok {
			if err := onStage(d.in, p.parts, mounts); err != nil {
				return nil, err
			}
		}
	}
	all := maps.Clone(mounts)
	maps.Copy(all, p.shares)
	if err := attach(all); err != nil {
		return nil, err
	}
	if err := attachNodes(nodes); err != nil {
		return nil, err
	}
	r, err := here()
	if err != nil {
		return nil, err
	}
	if err := r.watch(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// stage is where file systems are mounted to be taken apart: a directory that is there for sure.
const stage = "/dev/shm"

// onStage takes the parts of a file system for mounts. Before Linux 6.15 that can be done only while it is mounted.
func onStage(in *os.File, parts []part, mounts map[string]int) error {
	if err := unix.MoveMount(int(in.Fd()), "", unix.AT_FDCWD, stage, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount a private file system: %w", err)
	}
	for _, p := range parts {
		if p.in != in {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, stage+"/"+p.name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("cannot take %s: %w", p.name, err)
		}
		mounts[p.path] = fd
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot unmount a private file system: %w", err)
	}
	return nil
}

// watch opens what tells whether the IPC namespace is empty. Such files show the namespace of who opened them.
func (r *room) watch() error {
	for _, name := range []string{"shm", "msg", "sem"} {
		fd, err := unix.Open("/proc/sysvipc/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue // a kernel without
		}
		if err != nil {
			return fmt.Errorf("cannot watch an IPC namespace: %w", err)
		}
		r.tables = append(r.tables, fd)
	}
	mount, err := newMount("mqueue", nil, noDevices)
	if err != nil {
		return nil // a kernel without
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot watch an IPC namespace: %w", err)
	}
	r.queues = fd
	return nil
}

// empty reports whether the programs have left nothing in the IPC namespace. One call for each tells.
func (r *room) empty() bool {
	b := make([]byte, 1024)
	for _, f := range r.tables {
		// The first line names the columns.
		n, err := unix.Pread(f, b, 0)
		if err != nil || n <= 0 || n == len(b) || bytes.IndexByte(b[:n], '\n') != n-1 {
			return false
		}
	}
	if r.queues <= 0 {
		return true
	}
	if _, err := unix.Seek(r.queues, 0, io.SeekStart); err != nil {
		return false
	}
	n, err := unix.ReadDirent(r.queues, b)
	if err != nil || n <= 0 {
		return false
	}
	_, _, names := unix.ParseDirent(b[:n], 1, nil) // but for itself and the one above
	return len(names) == 0
}

func (r *room) close() {
	if r == nil {
		return
	}
	for _, f := range []*os.File{r.mounts, r.ipc} {
		if f != nil {
			f.Close()
		}
	}
	for _, fd := range append(r.tables, r.queues) {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}
