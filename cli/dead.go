package cli

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/api"
)

func (c *command) dead() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "Look at and deal with dead letters", Args: cobra.NoArgs,
		Long: `Dead letters are messages that were refused, and tasks that failed for good: kept whole, with the reason.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List dead letters, oldest first", Args: cobra.NoArgs, Example: "  mayfly dead list\n  mayfly dead list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage("--limit is %d: it must not be negative", limit)
			}
			client := c.client()
			defer client.Close()
			letters, err := client.Dead(cmd.Context(), min(limit, math.MaxInt-1)+1) // one more says that there are more
			if err != nil {
				return err
			}
			if len(letters) > limit {
				letters = letters[:limit]
				fmt.Fprintf(cmd.ErrOrStderr(), "mayfly: these are the oldest %d: --limit shows more\n", limit)
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), letters)
			}
			rows := make([][]string, 0, len(letters))
			for _, d := range letters {
				rows = append(rows, []string{d.Key, d.Pool, string(d.Cause), d.Host, ago(d.BuriedAt), d.Reason})
			}
			printTable(cmd.OutOrStdout(), []column{{"key", true}, {"pool", false}, {"cause", false}, {"host", false}, {"age", false}, {"reason", true}}, rows)
			return nil
		},
	}
	list.Flags().IntVarP(&limit, "limit", "n", 1000, "at most `N`")
	c.jsonFlag(list)
	show := &cobra.Command{
		Use: "show KEY", Short: "Show one dead letter with its body", Args: cobra.ExactArgs(1), Example: "  mayfly dead show job_456",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			d, err := client.DeadLetter(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			lines := [][2]string{{"key", d.Key}, {"id", d.TaskID}, {"pool", fmt.Sprintf("%s (%s)", d.Pool, d.Band)}, {"host", d.Host},
				{"cause", string(d.Cause)}, {"reason", d.Reason}, {"buried", d.BuriedAt.Local().Format("2006-01-02 15:04:05")}}
			for _, p := range d.Attempts {
				lines = append(lines, [2]string{fmt.Sprintf("attempt %d", p.Attempt), describe(&p)})
			}
			return fields(cmd.OutOrStdout(), append(lines, [2]string{"body", strings.ToValidUTF8(string(d.Body), "\uFFFD")}))
		},
	}
	c.jsonFlag(show)
	requeue := c.bury("requeue", "Put dead letters back into their pools, with no attempts behind them", "put back", (*api.Client).Requeue)
	drop := c.bury("drop", "Remove dead letters for good", "dropped", (*api.Client).Drop)
	cmd.AddCommand(list, show, requeue, drop)
	return cmd
}

// bury makes a command that does one thing to each of the dead letters that are named.
func (c *command) bury(name, short, done string, act func(*api.Client, context.Context, string) error) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: name + " KEY...", Short: short, Example: fmt.Sprintf("  mayfly dead %[1]s job_456\n  mayfly dead %[1]s --all", name),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if all == (len(keys) > 0) {
				return usage("name dead letters, or give --all; see \"%s --help\"", cmd.CommandPath())
			}
			client := c.client()
			defer client.Close()
			if all {
				letters, err := client.Dead(cmd.Context(), 1<<30)
				if err != nil {
					return err
				}
				for _, d := range letters {
					keys = append(keys, d.Key)
				}
			}
			var failed error
			for _, key := range keys {
				if err := act(client, cmd.Context(), key); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", clean(key), clean(err.Error()))
					failed = &codeError{code: codeFailure}
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", clean(key), done)
			}
			return failed
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	return cmd
}
