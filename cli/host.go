package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *command) run() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the manager on this host",
		Long: `Run the manager: take tasks from the queue, give each one a worker, report what became of it.

The first SIGTERM or SIGINT drains: no new tasks, running ones may finish within MAYFLY_DRAIN_TIMEOUT.
The second one stops at once. Nothing is lost either way.`,
		Example: `  mayfly run
  MAYFLY_AMQP_URL=amqp://guest:guest@localhost:5672/ MAYFLY_POOLS=default,render mayfly run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context(), RunArgs{}) },
	}
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		fmt.Fprintln(cmd.OutOrStdout(), "\nSettings (variable, default, meaning):")
		c.RunHelp(cmd.OutOrStdout())
	})
	return cmd
}

func (c *command) keeper() *cobra.Command {
	return &cobra.Command{Use: "keeper DIR", Hidden: true, DisableFlagParsing: true,
		Short: "Be the parent of the workers (started by the manager)",
		RunE:  func(_ *cobra.Command, args []string) error { return c.Keeper(args) }}
}

func (c *command) info() *cobra.Command {
	cmd := &cobra.Command{
		Use: "info", Aliases: []string{"status"}, Short: "Show the host at a glance", Args: cobra.NoArgs,
		Long:    "Show the host at a glance: its queue, what it lends to workers, how many tasks wait and run.",
		Example: "  mayfly info\n  mayfly info --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			i, err := client.Info(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), i)
			}
			depth := 0
			for _, n := range i.Depth {
				depth += n
			}
			quarantined := [][2]string{}
			for _, q := range i.Quarantined {
				quarantined = append(quarantined, [2]string{"quarantined", q})
			}
			if i.Unfit != "" {
				quarantined = append(quarantined, [2]string{"takes no tasks", i.Unfit})
			}
			return fields(cmd.OutOrStdout(), append([][2]string{
				{"host", fmt.Sprintf("%s, %s since %s", i.Host, i.State, ago(i.StartedAt))},
				{"version", i.Version},
				{"queue", i.Queue},
				{"pools", strings.Join(i.Pools, ", ")},
				{"cpu", fmt.Sprintf("%.3g of %.3g cores lent", i.CPUUsed, i.CPU)},
				{"memory", fmt.Sprintf("%s of %s lent", human(i.MemoryUsed), human(i.Memory))},
				{"disk", fmt.Sprintf("%s of %s lent", human(i.DiskUsed), human(i.Disk))},
				{"gpus", fmt.Sprintf("%d of %d free", i.GPUsFree, i.GPUs)},
				{"tasks", fmt.Sprintf("%d running, %d waiting here, %d being settled, %d in the queue", i.Running, i.Waiting, i.Settling, depth)},
			}, quarantined...))
		},
	}
	c.jsonFlag(cmd)
	return cmd
}

func (c *command) check() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Look at this host and print the remedy for each thing that is wrong", Args: cobra.NoArgs,
		Long:    "Look at this host as \"mayfly run\" would find it, with the same settings, and print the remedy for each thing that is wrong.\nIt exits with 1 when something is.",
		Example: "  mayfly check\n  mayfly check --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ok, err := c.Check(cmd.Context(), cmd.OutOrStdout(), c.json)
			if err == nil && !ok {
				err = &codeError{code: codeFailure}
			}
			return err
		},
	}
	c.jsonFlag(cmd)
	return cmd
}

func (c *command) version() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": c.Version})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), c.Version)
			return err
		}}
	c.jsonFlag(cmd)
	return cmd
}

func (c *command) drain() *cobra.Command {
	var timeout time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use: "drain", Short: "Have the manager take no new tasks and end when its running ones have", Args: cobra.NoArgs,
		Long: `Have the manager drain: no new tasks; running ones may finish within --timeout (MAYFLY_DRAIN_TIMEOUT); what is left then is
stopped and goes back to the queue, and the manager ends. Unlike a manager that is stopped with MAYFLY_ON_STOP=keep, it leaves nothing running.`,
		Example: "  mayfly drain\n  mayfly drain --wait --timeout 12h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout < 0 {
				return usage("cannot use --timeout=%s: it is a positive time", timeout)
			}
			client := c.client()
			defer client.Close()
			if err := client.Drain(cmd.Context(), timeout); err != nil || !wait {
				return err
			}
			return client.UntilGone(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long running tasks may take (default MAYFLY_DRAIN_TIMEOUT)")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the manager has ended")
	return cmd
}

// ago says how long ago something was.
func ago(t time.Time) string { return span(time.Since(t)) }

// span writes a time span in one unit or two.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
