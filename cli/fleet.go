package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (c *command) hosts() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hosts", Short: "List the hosts of the fleet", Args: cobra.NoArgs,
		Long:    "List all hosts that serve one of this host's pools and answer: what they lend, what runs there, and why one takes no tasks.",
		Example: "  mayfly hosts\n  mayfly hosts --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := c.client()
			defer client.Close()
			list, err := client.Hosts(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), list)
			}
			rows := [][]string{}
			for _, i := range list {
				note := i.Unfit
				if note != "" {
					note = "takes no tasks: " + note
				}
				rows = append(rows, []string{i.Host, i.State, strings.Join(i.Pools, ","), fmt.Sprintf("%.3g/%.3g", i.CPUUsed, i.CPU),
					human(i.MemoryUsed) + "/" + human(i.Memory), fmt.Sprintf("%d/%d", i.GPUs-i.GPUsFree, i.GPUs), fmt.Sprint(i.Running), fmt.Sprint(i.Waiting), note})
			}
			printTable(cmd.OutOrStdout(), []column{{"host", true}, {"state", true}, {"pools", true}, {"cpu", false}, {"memory", false}, {"gpus", false},
				{"running", false}, {"waiting", false}, {"note", true}}, rows)
			return nil
		},
	}
	c.jsonFlag(cmd)
	return cmd
}
