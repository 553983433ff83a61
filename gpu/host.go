package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mayfly/mayfly/internal/logkey"
)

// Config is what a Host needs to know.
type Config struct {
	Driver Driver
	// Only names the GPUs that are lent, by index or UUID; empty for all.
	Only []string
	// Shared says that several tasks may share a GPU's memory.
	Shared bool
	// Clean bounds how long a device may take to be clean after its holder has ended.
	Clean time.Duration
	// Changed, if not nil, is called when something can be lent that could not before. No lock is held.
	Changed func()
	// FormatSize writes an amount of bytes.
	FormatSize func(int64) string
	Log        *slog.Logger
}

// Host is the GPUs of this host. It is safe for use by several goroutines.
type Host struct {
	config Config
	procs  processes

	mu     sync.Mutex
	driver string
	cuda   string
	common []File
	others []File
	// why says why there are no devices, where there are none.
	why     string
	units   []*unit
	holders map[string]*holder
	// look is told to when there is more to look at, or to do it sooner; looking says that the goroutine lives.
	look    chan struct{}
	looking bool
	started bool
	closed  bool
	// retry is when the inventory is tried again; zero for never. freed says that something has become free since that was told.
	retry time.Time
	freed bool
}

// condition is what a device is in.
type condition string

const (
	free        condition = "free"
	held        condition = "held"
	checking    condition = "checking"
	quarantined condition = "quarantined"
)

// unit is a device and who has it. The Host's lock guards it.
type unit struct {
	Device
	// shares are the bytes lent, by holder; all of the memory for a holder of the whole.
	shares map[string]int64
	// whole says that it is not lent in shares now.
	whole bool
	// dirty says that it has not been found clean since it was held, or at all where it is new. bound is when it must be.
	dirty, fresh bool
	bound        time.Time
	// why says why it is in quarantine, or is empty; since when; trust is when it may be let out at the earliest.
	why   string
	since time.Time
	trust time.Time
	// due is when to look at it next, pause the wait after that.
	due   time.Time
	pause time.Duration
	// baseline is what is used of it when nobody does, -1 before it was seen so. residents are processes that belong there, by PID
	// and start time.
	baseline  int64
	residents map[resident]bool
	// shot are the processes that were killed on it since it was clean, by PID.
	shot map[int]bool
	// last is how it was found, silence why it could not be looked at last, or empty.
	last    State
	silence string
}

// unfit says in a few words why it must not be lent, or is empty.
func (u *unit) unfit() string {
	if u.silence != "" {
		return u.silence
	}
	return u.last.Unfit()
}

// resident is a process of the host's that is always there, as a display server.
type resident struct {
	pid   int
	start uint64
}

func (u *unit) condition() condition {
	switch {
	case u.why != "":
		return quarantined
	case len(u.shares) > 0:
		return held
	case u.dirty:
		return checking
	}
	return free
}

// Open finds the host's devices. Where there are none, or none can be found now, it lends none, and tries again if that may help. The
// error is that of a configuration that cannot be met. Nothing is lent before Start.
func Open(ctx context.Context, c Config) (*Host, error) {
	h := &Host{config: c, procs: procFS("/proc"), holders: map[string]*holder{}, look: make(chan struct{}, 1)}
	inventory, err := c.Driver.Inventory(ctx)
	switch {
	case err == nil:
		return h, h.adopt(inventory)
	case !errors.Is(err, ErrNone):
		c.Log.Error("no GPU is lent for now", logkey.Err, err)
		h.retry = time.Now().Add(probeMin)
	case len(c.Only) > 0:
		return nil, fmt.Errorf("cannot lend the GPUs %v: %w", c.Only, err)
	}
	h.why = lendsNone(err)
	return h, nil
}

// lendsNone says in words that follow "this host " why there are no devices.
func lendsNone(err error) string {
	return "lends no GPU: " + strings.TrimPrefix(err.Error(), ErrNone.Error()+": ")
}

// Start has all devices looked at, once it is known who holds them since before.
func (h *Host) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.started = true
	h.wake()
}

// adopt takes an inventory over. The lock is held.
func (h *Host) adopt(i *Inventory) error {
	h.driver, h.cuda, h.common, h.others, h.why = i.Driver, i.CUDA, i.Common, slices.Clone(i.Others), ""
	chosen := map[string]bool{}
	for _, name := range h.config.Only {
		n := slices.IndexFunc(i.Devices, func(d Device) bool {
			return d.UUID == name || d.Parent == "" && strconv.Itoa(d.Index) == name
		})
		if n < 0 {
			return fmt.Errorf("cannot lend the GPU %s: the host has %s", name, i.names())
		}
		chosen[i.Devices[n].UUID] = true
	}
	for _, d := range i.Devices {
		if len(chosen) > 0 && !chosen[d.UUID] && !chosen[d.Parent] {
			h.others = append(h.others, d.Files...)
			continue
		}
		u := &unit{Device: d, shares: map[string]int64{}, baseline: -1, residents: map[resident]bool{}, shot: map[int]bool{}, dirty: true, fresh: true}
		for id, holder := range h.holders { // taken before it was known
			for _, g := range holder.grants {
				if g.UUID == d.UUID {
					u.take(id, g)
				}
			}
		}
		h.units = append(h.units, u)
	}
	if len(h.units) == 0 {
		h.why = "lends no GPU: the driver shows none"
	}
	return nil
}

func (i *Inventory) names() string {
	text := ""
	for _, d := range i.Devices {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d (%s)", d.Index, d.UUID)
	}
	return text
}

// Empty reports whether the host has no devices at all.
func (h *Host) Empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.units) == 0
}

// unit finds a device. The lock is held.
func (h *Host) unit(uuid string) *unit {
	for _, u := range h.units {
		if u.UUID == uuid {
			return u
		}
	}
	return nil
}

// Files are the device files that a holder of the grants may open, and those of all devices that it may not.
func (h *Host) Files(grants []Grant) (open, closed []File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	mine := map[File]bool{}
	add := func(files []File) {
		for _, f := range files {
			if !mine[f] {
				mine[f] = true
				open = append(open, f)
			}
		}
	}
	if len(grants) > 0 {
		add(h.common)
	}
	for _, g := range grants {
		if u := h.unit(g.UUID); u != nil {
			add(u.Files)
		}
	}
	shut := map[File]bool{}
	closeAll := func(files []File) {
		for _, f := range files {
			if !mine[f] && !shut[f] {
				shut[f] = true
				closed = append(closed, f)
			}
		}
	}
	for _, u := range h.units {
		closeAll(u.Files)
	}
	closeAll(h.others)
	if len(grants) == 0 {
		closeAll(h.common)
	}
	return open, closed
}

// Close ends the looking.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.config.Driver.Watch(nil)
	select {
	case h.look <- struct{}{}:
	default:
	}
}
