package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

func (c *command) ps() *cobra.Command {
	var all, watch bool
	var ended int
	var status, state, cause, pool, label, text string
	cmd := &cobra.Command{
		Use: "ps", Short: "List the tasks of this host", Args: cobra.NoArgs,
		Long: `List the tasks that this host knows: those that run, wait here, or wait in its embedded queue (the first 1000);
with -a or --ended also those that have ended, newest first; with --state, --cause or --status ended only those, the
last 20 unless --ended says how many. With other filters, those are counted that match.`,
		Example: "  mayfly ps\n  mayfly ps -a\n  mayfly ps --ended 1000 --label batch=7 --json\n  mayfly ps --cause oom\n  mayfly ps --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			for k, v := range map[string]string{"status": status, "state": state, "cause": cause, "pool": pool, "label": label, "text": text} {
				if v != "" {
					query.Set(k, v)
				}
			}
			filter, err := api.Filter(query)
			if err != nil {
				return usage("%w", err)
			}
			switch byEnd := len(filter.States)+len(filter.Causes) > 0; {
			case ended < 0:
				return usage("--ended is %d: it must not be negative", ended)
			case watch && (c.json || all || ended > 0 || byEnd):
				return usage("--watch shows active tasks to people: it does not go with --json, --all, --ended, --state and --cause")
			case ended == 0 && (all || byEnd || slices.Contains(filter.Statuses, manager.Ended)):
				ended = 20
			}
			client := c.client()
			defer client.Close()
			if watch {
				return watchTasks(cmd, client, filter)
			}
			views, err := listTasks(cmd.Context(), client, ended, filter, query)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), views)
			}
			printViews(cmd.OutOrStdout(), views, ended > 0)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "the last 20 ended tasks too")
	f.IntVarP(&ended, "ended", "n", 0, "the last `N` ended tasks too")
	f.StringVar(&status, "status", "", "only tasks with this status: queued, waiting, parked, running, stopping, settling, backing_off, ended")
	f.StringVar(&state, "state", "", "only tasks that ended so: succeeded, failed, cancelled, rejected")
	f.StringVar(&cause, "cause", "", "only tasks with this cause: exit, oom, timeout, ...")
	f.StringVar(&text, "text", "", "only tasks with this in id, name, command or labels")
	f.StringVar(&pool, "pool", "", "only tasks of this pool")
	f.StringVar(&label, "label", "", "only tasks with this label, as `KEY[=VALUE]`")
	f.BoolVarP(&watch, "watch", "w", false, "show the active tasks live until Ctrl-C")
	c.jsonFlag(cmd)
	return cmd
}

// listTasks lists active tasks, and so many that have ended, of those that a filter lets pass.
func listTasks(ctx context.Context, client *api.Client, ended int, filter manager.Filter, query url.Values) ([]manager.View, error) {
	views := []manager.View{}
	byEnd, is := len(filter.States)+len(filter.Causes) > 0, len(filter.Statuses)
	past := is == 0 || slices.Contains(filter.Statuses, manager.Ended)
	if active := !byEnd && (is != 1 || !past); active {
		var err error
		if views, err = client.List(ctx, query); err != nil {
			return nil, err
		}
	}
	if !past || ended == 0 {
		return views, nil
	}
	list, err := client.Ended(ctx, ended, query)
	return append(views, list...), err
}

// watchTasks draws the active tasks that a filter lets pass anew at each change.
func watchTasks(cmd *cobra.Command, client *api.Client, filter manager.Filter) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	changes := make(chan []manager.View)
	ended := make(chan error, 1)
	go func() {
		ended <- client.Events(ctx, func(views []manager.View) bool {
			select {
			case changes <- views:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	out := cmd.OutOrStdout()
	var views []manager.View
	second := time.NewTicker(time.Second) // the times go on without a change
	defer second.Stop()
	for {
		select {
		case views = <-changes:
			views = slices.DeleteFunc(views, func(v manager.View) bool { return !filter.Matches(&v) })
		case <-second.C:
		case err := <-ended:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		screen := &screen{width: terminal(out)}
		if screen.width > 0 {
			fmt.Fprint(screen, "\x1b[H\x1b[2J") // home, clear
		}
		printViews(screen, views, false)
		if _, err := screen.WriteTo(out); err != nil {
			return fmt.Errorf("cannot draw: %w", err)
		}
	}
}

// screen is what is to be drawn at once on a terminal of a width.
type screen struct {
	bytes.Buffer
	width int
}

// printViews prints tasks, ended ones with how they ended.
func printViews(w io.Writer, views []manager.View, ended bool) {
	columns := []column{{"id", true}, {"name", true}, {"status", false}, {"attempt", false}, {"cpu", false}, {"memory", false}, {"gpus", false}, {"time", false}}
	if ended {
		columns = append(columns, column{"cause", false}, column{"exit", false})
	}
	columns = append(columns, column{"command", true})
	rows := make([][]string, 0, len(views))
	for _, v := range views {
		status, cause, exit := string(v.Status), "", ""
		if r := v.Result; r != nil {
			status, cause, exit = string(r.State), string(r.Cause), r.Signal
			if r.ExitCode != nil {
				exit = strconv.Itoa(*r.ExitCode)
			}
		}
		memory, cpu, gpus := "", "", ""
		if n := len(v.GPUs); n > 0 {
			gpus = strconv.Itoa(n)
		}
		if v.Memory > 0 {
			memory = human(v.Memory)
		}
		if v.CPU > 0 {
			cpu = strconv.FormatFloat(v.CPU, 'g', 4, 64)
		}
		row := []string{v.ID, v.Name, status, strconv.Itoa(v.Attempt), cpu, memory, gpus, taskTime(&v)}
		if ended {
			row = append(row, cause, exit)
		}
		command := v.Command
		if v.Reason != "" && v.Status != manager.Ended {
			command = "(" + v.Reason + ") " + command
		}
		rows = append(rows, append(row, command))
	}
	printTable(w, columns, rows)
}

// taskTime is how long a task has run, or ran, or has been waiting.
func taskTime(v *manager.View) string {
	switch {
	case v.StartedAt != nil && v.FinishedAt != nil:
		return span(v.FinishedAt.Sub(*v.StartedAt))
	case v.StartedAt != nil:
		return ago(*v.StartedAt)
	case v.FinishedAt != nil:
		return "-"
	}
	return ago(v.QueuedAt)
}

func (c *command) show() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one task", Args: cobra.ExactArgs(1),
		Long:    "Show one task: where it stands, its attempts, its usage and result, and the end of its output.",
		Example: "  mayfly show job_456\n  mayfly show job_456 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			v, err := client.Show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), v)
			}
			return printView(cmd.OutOrStdout(), &v)
		},
	}
	c.jsonFlag(cmd)
	return cmd
}

func (c *command) explain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ID", Short: "Say why a task is where it is", Args: cobra.ExactArgs(1),
		Long:    "Say in a sentence why a task waits, what it does, or how it ended; and for one that waits, what each other host lacks for it.",
		Example: "  mayfly explain job_456",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			x, err := client.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), x)
			}
			since := ""
			if x.Since != nil {
				since = " (" + ago(*x.Since) + ")"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s\n", clean(x.ID), clean(x.Sentence), since)
			for _, h := range x.Hosts {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", clean(h.Host), clean(h.Says))
			}
			return nil
		},
	}
	c.jsonFlag(cmd)
	return cmd
}

func printView(w io.Writer, v *manager.View) error {
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Local().Format("2006-01-02 15:04:05.000")
	}
	list := [][2]string{{"id", v.ID}, {"name", v.Name}, {"pool", fmt.Sprintf("%s (%s)", v.Pool, v.Band)}, {"command", v.Command}}
	r := v.Result
	if r == nil {
		list = append(list, [2]string{"status", string(v.Status)}, [2]string{"reason", v.Reason})
	} else {
		list = append(list, [2]string{"state", string(r.State)}, [2]string{"cause", string(r.Cause)}, [2]string{"message", r.Message}, [2]string{"host", r.Host})
	}
	for k, value := range v.Labels {
		list = append(list, [2]string{"label", k + "=" + value})
	}
	list = append(list, [2]string{"queued", at(&v.QueuedAt)}, [2]string{"started", at(v.StartedAt)}, [2]string{"finished", at(v.FinishedAt)})
	if v.PID != 0 {
		list = append(list, [2]string{"pid", strconv.Itoa(v.PID)})
	}
	if len(v.GPUs) > 0 {
		list = append(list, [2]string{"gpus", strings.Join(v.GPUs, ", ")})
	}
	for _, p := range v.Attempts {
		list = append(list, [2]string{fmt.Sprintf("attempt %d", p.Attempt), describe(&p)})
	}
	if r != nil {
		if r.StartedAt != nil {
			list = append(list, [2]string{"usage", fmt.Sprintf("%s, %.3gs of CPU, %s of memory at most",
				span(time.Duration(r.Usage.WallSeconds*float64(time.Second))), r.Usage.CPUSeconds, human(r.Usage.MemoryPeakBytes))})
			if len(r.GPUs) > 0 {
				list = append(list, [2]string{"gpu usage", fmt.Sprintf("%s of memory at most, %.3g J, busy for %.0f%% of the time",
					human(r.Usage.GPUMemoryPeakBytes), r.Usage.GPUEnergyJoules, 100*r.Usage.GPUUtilization)})
			}
		}
		if string(r.Result) != "null" {
			list = append(list, [2]string{"result", string(r.Result)})
		}
		list = append(list, [2]string{"stdout", r.StdoutTail}, [2]string{"stderr", r.StderrTail})
	}
	return fields(w, list)
}

// describe tells an attempt in one line.
func describe(p *queue.Past) string {
	how := string(p.Cause)
	switch {
	case p.ExitCode != nil:
		how = fmt.Sprintf("%s, exit code %d", p.Cause, *p.ExitCode)
	case p.Signal != "":
		how = fmt.Sprintf("%s, %s", p.Cause, p.Signal)
	}
	if p.Cause == queue.CauseNone {
		how = "succeeded"
	}
	return fmt.Sprintf("%s on %s after %s", how, p.Host, span(p.FinishedAt.Sub(p.StartedAt)))
}

func (c *command) cancel() *cobra.Command {
	var labels []string
	cmd := &cobra.Command{
		Use: "cancel {ID... | --label KEY=VALUE}", Short: "Cancel tasks, wherever they are",
		Long: "Cancel tasks: one that waits ends at once, one that runs gets SIGTERM, its grace, then SIGKILL. Its state becomes cancelled.\n" +
			"One that waits in the broker or is on a host that is away ends when a host meets it within a day.",
		Example: "  mayfly cancel job_456 job_457\n  mayfly cancel --label batch=2026-11-21",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args)+len(labels) == 0 {
				return usage("name the tasks, or a label with --label KEY=VALUE")
			}
			for _, label := range labels {
				if key, _, ok := strings.Cut(label, "="); !ok || key == "" {
					return usage("--label is %q: it must be KEY=VALUE", label)
				}
			}
			client := c.client()
			defer client.Close()
			var first error
			for _, label := range labels {
				said, err := client.CancelLabel(cmd.Context(), label)
				if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", clean(label), err)
					first = &codeError{code: codeFailure}
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", clean(label), said)
			}
			for _, id := range args {
				said, err := client.Cancel(cmd.Context(), id)
				if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", clean(id), clean(err.Error()))
					first = &codeError{code: codeFailure}
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", clean(id), clean(said))
			}
			return first
		},
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "cancel all tasks with this label, as `KEY=VALUE`; may be repeated")
	return cmd
}
