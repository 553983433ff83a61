package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/gpu"
)

func (c *command) gpuHelper() *cobra.Command {
	return &cobra.Command{Use: "gpu-helper SETTINGS", Hidden: true, DisableFlagParsing: true,
		Short: "Speak to the GPUs' driver (started by the manager)",
		RunE:  func(_ *cobra.Command, args []string) error { return c.GPUHelper(args) }}
}

func (c *command) gpus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gpus", Short: "List the host's GPUs: who has them, how they are", Args: cobra.NoArgs,
		Long:    "List the host's GPUs and MIG instances: who has them, how busy, how hot, which are in quarantine, and why.",
		Example: "  mayfly gpus\n  mayfly gpus --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			o, err := client.GPUs(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), o)
			}
			if o.Note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "mayfly: "+clean(o.Note))
			}
			if len(o.GPUs) == 0 {
				return nil
			}
			rows := make([][]string, len(o.GPUs))
			for i := range o.GPUs {
				rows[i] = gpuRow(&o.GPUs[i])
			}
			printTable(cmd.OutOrStdout(), []column{{"gpu", false}, {"model", true}, {"memory", false}, {"busy", false}, {"power", false}, {"temp", false}, {"node", false},
				{"links", false}, {"condition", false}, {"held by", true}, {"uuid", true}}, rows)
			for i := range o.GPUs {
				if g := &o.GPUs[i]; g.Reason != "" && g.Since != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s has been in quarantine for %s: %s\n", gpuName(g), ago(*g.Since), clean(g.Reason))
				}
			}
			return nil
		},
	}
	c.jsonFlag(cmd)
	return cmd
}

// gpuName is a GPU's number, with an instance's profile.
func gpuName(g *gpu.Status) string {
	if g.Parent != "" {
		return fmt.Sprintf("%d/%s", g.Index, g.Profile)
	}
	return fmt.Sprint(g.Index)
}

// gpuRow is a GPU's row of the table.
func gpuRow(g *gpu.Status) []string {
	used := g.State.Used
	if g.Parent != "" {
		used = g.State.Instances[g.UUID]
	}
	columns := []string{gpuName(g), g.Model, human(used) + " of " + human(g.Memory)}
	if g.Parent != "" {
		columns = append(columns, "-", "-", "-") // they are the whole GPU's
	} else {
		columns = append(columns, fmt.Sprintf("%.0f%%", 100*g.State.Utilization), fmt.Sprintf("%.0f of %.0f W", g.State.Power, g.State.PowerLimit),
			fmt.Sprintf("%d °C", g.State.Temperature))
	}
	node := "-"
	if g.Node >= 0 {
		node = fmt.Sprint(g.Node)
	}
	var holders []string
	for _, id := range slices.Sorted(maps.Keys(g.Holders)) {
		if g.Holders[id] < g.Memory {
			id += " (" + human(g.Holders[id]) + ")"
		}
		holders = append(holders, id)
	}
	if len(holders) == 0 {
		holders = []string{"-"}
	}
	return append(columns, node, linksOf(g), g.Condition, strings.Join(holders, ", "), g.UUID)
}

// linksOf says how a GPU is connected to its best peers: "4 NVLinks to 3 GPUs".
func linksOf(g *gpu.Status) string {
	most, peers := 0, 0
	for _, l := range g.Links {
		switch {
		case l.NVLinks > most:
			most, peers = l.NVLinks, 1
		case l.NVLinks == most:
			peers++
		}
	}
	if most == 0 {
		return "-"
	}
	return fmt.Sprintf("%d NVLinks to %d", most, peers)
}
