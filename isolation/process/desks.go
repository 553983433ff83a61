package process

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// A child is born with our files, not with a copy of them: of thousands of workers each has some, and to copy them all for each birth, and to close the copies, would take
// milliseconds. Before it takes its standard files, it leaves ours with a copy of the lowest ones alone. What it takes must be among these: so each thread that
// forks has three low descriptors of its own, a desk, on which the files of the child that it bears are laid. Nothing that a child opens before may stay open.

// desk is three descriptors of a thread that forks.
type desk [3]int

// setDesks makes the desks of n threads, where the kernel lets a child leave our files (close_range(2), Linux 5.9).
func (s *Spawner) setDesks(n int) (err error) {
	if unix.CloseRange(math.MaxUint32, math.MaxUint32, 0) != nil { // closes nothing
		return nil
	}
	defer func() {
		if err != nil {
			s.clearDesks()
			err = fmt.Errorf("cannot set descriptors aside: %w", err)
		}
	}()
	if s.blank, err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	for range n {
		d := desk{-1, -1, -1}
		for i := range d {
			if d[i], err = unix.FcntlInt(uintptr(s.blank), unix.F_DUPFD_CLOEXEC, 3); err != nil {
				s.desks = append(s.desks, d)
				return err
			}
			s.low = max(s.low, d[i]+1)
		}
		s.desks = append(s.desks, d)
	}
	return nil
}

// clearDesks closes the desks.
func (s *Spawner) clearDesks() {
	if s.blank > 0 {
		unix.Close(s.blank)
	}
	for _, d := range s.desks {
		for _, fd := range d {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
	s.blank, s.desks = 0, nil
}

// bear gives birth to a child on the calling thread, which has a desk, or nil.
func (s *Spawner) bear(c *child, d *desk) (int, error) {
	if d == nil {
		return c.start()
	}
	defer func() {
		for _, fd := range d {
			_ = unix.Dup3(s.blank, fd, unix.O_CLOEXEC) // what was laid there is not to be held: a pipe would have no end
		}
	}()
	for i, f := range c.files {
		if err := unix.Dup3(f, d[i], unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("cannot lay its files out: %w", err)
		}
		c.steps[c.takes+i].args[0] = uintptr(d[i])
	}
	return c.start()
}
