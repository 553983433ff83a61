package cli

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/manager"
)

func (c *command) demand() *cobra.Command {
	var broker bool
	var perHost float64
	cmd := &cobra.Command{
		Use: "demand", Short: "Show how much work waits, and how many hosts it is for", Args: cobra.NoArgs,
		Long: `Show how much work waits, and how many hosts like this one could start it at once. What a queued task needs
is not known before a host takes it: those that this host holds, or a task that says nothing, stand for them. Cores, memory and GPUs
are what all that is queued or waits here needs by that.

With --broker, RabbitMQ is asked itself (MAYFLY_AMQP_URL, MAYFLY_POOLS), for where no host runs.`,
		Example: "  mayfly demand\n  mayfly demand --json\n  mayfly demand --broker --per-host 8 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(perHost >= 1) || perHost > 1e9 {
				return usage("cannot use --per-host=%v: it is at least 1", perHost)
			}
			var d manager.Demand
			if broker {
				depth, err := c.Depth(cmd.Context())
				if err != nil {
					return err
				}
				d.Queued, d.Pools = depth, poolsOf(depth, perHost)
			} else {
				if cmd.Flags().Changed("per-host") {
					return usage("cannot use --per-host without --broker: a host knows what it has room for")
				}
				client := c.client()
				defer client.Close()
				var err error
				if d, err = client.Demand(cmd.Context()); err != nil {
					return err
				}
			}
			switch {
			case c.json && broker: // a host's figures there are none
				return printJSON(cmd.OutOrStdout(), map[string]any{"queued": d.Queued, "pools": d.Pools})
			case c.json:
				return printJSON(cmd.OutOrStdout(), d)
			}
			rows := make([][]string, len(d.Pools))
			for i, p := range d.Pools {
				cpu, memory, gpus := "", "", "" // RabbitMQ does not know
				if n := p.Needs; n != nil {
					cpu, memory, gpus = fmt.Sprintf("%.4g", n.CPU), human(n.Memory), fmt.Sprint(n.GPUs)
				}
				rows[i] = []string{p.Pool, fmt.Sprint(p.Queued), fmt.Sprint(p.Waiting), fmt.Sprint(p.Running), cpu, memory, gpus, fmt.Sprint(p.PerHost), fmt.Sprint(p.Hosts)}
			}
			printTable(cmd.OutOrStdout(), []column{{"pool", true}, {"queued", false}, {"waiting", false}, {"running", false}, {"cpu", false}, {"memory", false}, {"gpus", false},
				{"per host", false}, {"hosts", false}}, rows)
			return nil
		},
	}
	cmd.Flags().BoolVar(&broker, "broker", false, "ask RabbitMQ itself")
	cmd.Flags().Float64Var(&perHost, "per-host", 1, "with --broker: how many tasks a host runs at once")
	c.jsonFlag(cmd)
	return cmd
}

// poolsOf sums the queues "<pool>.<band>" up by pool.
func poolsOf(depth map[string]int, perHost float64) []manager.PoolDemand {
	sums := map[string]int{}
	for name, n := range depth {
		pool, _, _ := strings.Cut(name, ".")
		sums[pool] += n
	}
	list := []manager.PoolDemand{}
	for _, pool := range slices.Sorted(maps.Keys(sums)) {
		list = append(list, manager.PoolDemand{Pool: pool, Queued: sums[pool], PerHost: perHost, Hosts: int(math.Ceil(float64(sums[pool]) / perHost))})
	}
	return list
}
