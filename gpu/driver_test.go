package gpu

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// driver is one that tells what a test wants.
type driver struct {
	mu        sync.Mutex
	inventory Inventory
	state     map[string]State
	err       error
	report    func(Fault)
	calls     int
}

func (d *driver) Inventory(context.Context) (*Inventory, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &d.inventory, d.err
}

func (d *driver) States(_ context.Context, gpus []string, _ bool) ([]State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.err != nil {
		return nil, d.err
	}
	var list []State
	for _, uuid := range gpus {
		s := d.state[uuid]
		s.UUID, s.At, s.Processes = uuid, time.Now(), slices.Clone(s.Processes)
		list = append(list, s)
	}
	return list, nil
}

func (d *driver) Watch(report func(Fault)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.report = report
}

// set changes the state of a GPU.
func (d *driver) set(uuid string, change func(*State)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state[uuid]
	s.Processes = slices.Clone(s.Processes)
	change(&s)
	d.state[uuid] = s
}

func (d *driver) fault(f Fault) {
	d.mu.Lock()
	report := d.report
	d.mu.Unlock()
	if report != nil {
		report(f)
	}
}

// eight is a host of eight GPUs in two nodes, with NVLinks within each.
func eight() *driver {
	d := &driver{state: map[string]State{}}
	for i := range 8 {
		g := Device{UUID: fmt.Sprint("GPU-", i), Index: i, Model: "NVIDIA H100 80GB HBM3", Memory: 80 << 30, Node: i / 4, Links: map[string]Link{},
			Files: []File{{Path: fmt.Sprint("/dev/nvidia", i), Major: 195, Minor: uint32(i)}}}
		for j := range 8 {
			switch {
			case j == i:
			case j/4 == i/4:
				g.Links[fmt.Sprint("GPU-", j)] = Link{NVLinks: 4, Level: "node"}
			default:
				g.Links[fmt.Sprint("GPU-", j)] = Link{Level: "system"}
			}
		}
		d.inventory.Devices = append(d.inventory.Devices, g)
		d.state[g.UUID] = State{RecoveryKnown: true}
	}
	d.inventory.Common = []File{{Path: "/dev/nvidiactl", Major: 195, Minor: 255}}
	return d
}
