package broker

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// tick is after how long the nodes of a cluster take one for gone that says nothing (net_ticktime; 60 s by default, which is long in a test).
const tick = 8 * time.Second

// Cluster is several nodes that are one broker, each on a network address of its own. A node is stopped, killed, paused and started like any
// other [Broker].
type Cluster struct {
	Nodes   []*Broker
	network *network
}

// StartCluster runs a cluster of the version until the end of the test. A minority of nodes that sees no others takes no clients, which is what
// RabbitMQ's guide to partitions advises for three nodes; from 4.3 on it does take them, and confirms nothing.
func StartCluster(tb testing.TB, v Version, size int) *Cluster {
	tb.Helper()
	root, server := v.find(tb)
	net, err := newNetwork(size)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(net.remove)
	conf, hosts := "cluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend = classic_config\n", ""
	for i := range size {
		conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = mayfly@n%[1]d\n", i+1)
		hosts += fmt.Sprintf("%s n%d\n", net.ip(i), i+1)
	}
	c := &Cluster{network: net}
	for i := range size {
		dir, err := os.MkdirTemp("", "mayfly-broker-")
		if err != nil {
			tb.Fatalf("cannot make the broker's folder: %v", err)
		}
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		// Each has a network of its own, and so all ports.
		b := &Broker{Version: v, root: root, server: server, data: dir, node: fmt.Sprintf("mayfly@n%d", i+1), ip: net.ip(i), network: net.file(i),
			ports: ports{amqp: 5672, amqps: 5671, dist: 25672, epmd: 4369}, hosts: hosts, options: Options{Config: conf}}
		if err := b.write(); err != nil {
			tb.Fatal(err)
		}
		c.Nodes = append(c.Nodes, b)
		tb.Cleanup(b.Kill)
	}
	if err := c.each((*Broker).start); err != nil {
		tb.Fatal(err)
	}
	if err := c.Whole(); err != nil {
		tb.Fatal(err)
	}
	return c
}

// each does the same with all nodes at once.
func (c *Cluster) each(do func(*Broker) error) error {
	errs := make([]error, len(c.Nodes))
	var group sync.WaitGroup
	for i, b := range c.Nodes {
		group.Go(func() { errs[i] = do(b) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// Whole returns when all nodes see all others and take clients.
func (c *Cluster) Whole() error {
	limit := time.Now().Add(startLimit)
	const running = "case erlang:function_exported(rabbit_nodes, list_running, 0) of true -> length(rabbit_nodes:list_running()); false -> length(rabbit_nodes:all_running()) end."
	for {
		seen := ""
		for _, b := range c.Nodes {
			n, err := b.Eval(running)
			if err == nil {
				err = b.takesClients()
			}
			if err != nil {
				n = err.Error()
			}
			seen += strings.TrimSpace(n) + " "
		}
		if seen == strings.Repeat(fmt.Sprintf("{ok, %d} ", len(c.Nodes)), len(c.Nodes)) {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the cluster of RabbitMQ %s did not come together within %s: nodes see %s", c.Nodes[0].Version, startLimit, seen)
		}
		time.Sleep(100 * time.Millisecond) // nodes give no signal
	}
}

// URL names all nodes, beginning with one of them.
func (c *Cluster) URL(first int) string {
	var urls []string
	for i := range c.Nodes {
		urls = append(urls, c.Nodes[(first+i)%len(c.Nodes)].URL())
	}
	return strings.Join(urls, ",")
}

// Part cuts a node off from the others, all of which are in reach of their clients all the while, and returns when both sides have noticed. (Where
// one side only has, 3.10 does not come together again by itself.)
func (c *Cluster) Part(i int) error {
	if err := c.network.part(i); err != nil {
		return err
	}
	for limit := time.Now().Add(4 * tick); ; time.Sleep(100 * time.Millisecond) {
		noticed := 0
		for j, b := range c.Nodes {
			peers := len(c.Nodes) - 2
			if j == i {
				peers = 0
			}
			if out, err := b.Eval("length(nodes())."); err == nil && strings.TrimSpace(out) == fmt.Sprintf("{ok, %d}", peers) {
				noticed++
			}
		}
		if noticed == len(c.Nodes) {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%d of %d nodes have noticed within %s that node %d is cut off", noticed, len(c.Nodes), 4*tick, i+1)
		}
	}
}

// Restart restarts the nodes, one after the other; each queue gets another leader by it.
func (c *Cluster) Restart() error {
	for _, b := range c.Nodes {
		if err := b.Stop(); err != nil {
			return err
		}
		if err := b.Start(); err != nil {
			return err
		}
		if err := c.Whole(); err != nil {
			return err
		}
	}
	return nil
}

// Rejoin ends a Part. When the nodes have found each other again is said by [Cluster.Whole].
func (c *Cluster) Rejoin(i int) error { return c.network.rejoin(i) }
