package integration

import (
	"math/rand/v2"
	"time"
)

// The kinds of faults of a cluster's nodes.
const (
	killNode    = "broker node killed"
	restartNode = "broker node restarted"
	partNode    = "broker node cut off from the others"
	pauseNode   = "broker node stopped (SIGSTOP)"
)

// harmNodes harms one node after the other until the function is called that it returns, which leaves the cluster whole. It waits each time until the
// nodes see each other again: without two of them, nothing goes on.
func (c *chaos) harmNodes() (stop func()) {
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 1))
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-ended:
				return
			case <-time.After(time.Duration(5+rng.IntN(20)) * time.Second):
			}
			from := time.Now()
			kind, err := c.harmNode(rng, rng.IntN(len(c.nodes)), ended)
			if err == nil {
				err = c.cluster.Whole()
			}
			if err != nil {
				c.fail("%s: %v", kind, err)
				return
			}
			c.happened("", kind, from)
		}
	}()
	return func() { close(ended); <-over }
}

// harmNode harms a node and mends it.
func (c *chaos) harmNode(rng *rand.Rand, i int, ended <-chan struct{}) (kind string, err error) {
	node := c.nodes[i]
	hold := func(most int) {
		select {
		case <-ended:
		case <-time.After(time.Duration(rng.IntN(most*1000)) * time.Millisecond):
		}
	}
	switch rng.IntN(4) {
	case 0:
		node.Kill()
		hold(5)
		return killNode, node.Start()
	case 1:
		if err := node.Stop(); err != nil {
			return restartNode, err
		}
		return restartNode, node.Start()
	case 2:
		if err := c.cluster.Part(i); err != nil {
			return partNode, err
		}
		hold(90)
		return partNode, c.cluster.Rejoin(i)
	default:
		if err := node.Pause(); err != nil {
			return pauseNode, err
		}
		hold(40)
		node.Kill() // some versions do not rejoin by themselves (docs/operations.md)
		return pauseNode, node.Start()
	}
}
