package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
)

// submission is one call of submit.
type submission struct {
	*command
	document
	pool, file, lines          string
	wait, quiet, onCancel, raw bool
}

func (c *command) submit() *cobra.Command {
	s := &submission{command: c}
	cmd := &cobra.Command{
		Use:   "submit [flags] [--] COMMAND [ARG...]",
		Short: "Submit a task, or many",
		Long: `Submit a task: a command, a shell script, a task type of the host, or a whole document from a file.

It prints the task's id. With --wait it prints the task's output as it comes, and exits with the worker's
exit code ("mayfly help exit-codes" lists the others). With --lines it submits one document a line.`,
		Example: `  mayfly submit -- python3 sim.py --steps 1000
  mayfly submit --wait --cpu 2 --memory 4GB --timeout 1h -- make -j2
  mayfly submit --shell 'sort < in | uniq > out' --workdir /data
  mayfly submit --type process_data --params '{"dataset": "report_Q3"}'
  mayfly submit --file task.json
  generate | mayfly submit --lines - --wait`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	s.flags(f)
	f.StringVar(&s.pool, "pool", "", "the pool to submit to (default the document's, or \"default\")")
	f.StringVarP(&s.file, "file", "f", "", "submit the task document in a `FILE`; - is standard input")
	f.StringVar(&s.lines, "lines", "", "submit the task documents in a `FILE`, one a line; - is standard input")
	f.BoolVarP(&s.wait, "wait", "w", false, "wait for the end; with one task, print its output and exit with its code")
	f.BoolVar(&s.onCancel, "cancel-on-interrupt", false, "with --wait and one task: Ctrl-C cancels it")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "with --lines: do not print the ids, show no progress")
	rawFlag(f, &s.raw)
	c.jsonFlag(cmd)
	return cmd
}

func (s *submission) run(cmd *cobra.Command, args []string) error {
	if given := s.given(cmd); (s.file != "" || s.lines != "") && len(given)+len(args) > 0 {
		return usage("%s does not go with --file or --lines: the documents say it all", strings.Join(append(given, args...), " "))
	}
	if s.file != "" && s.lines != "" {
		return usage("--file and --lines exclude each other")
	}
	if s.onCancel && (!s.wait || s.lines != "") {
		return usage("--cancel-on-interrupt goes with --wait and one task")
	}
	client := s.client()
	defer client.Close()
	if s.lines != "" {
		return s.many(cmd, client)
	}
	var doc []byte
	var err error
	if s.file != "" {
		doc, err = readFile(cmd, s.file)
	} else {
		doc, err = s.json(cmd, args)
	}
	if err != nil {
		return err
	}
	if s.wait {
		return s.submitAndFollow(cmd, client, doc)
	}
	id, err := client.Submit(cmd.Context(), doc, s.pool)
	if err != nil {
		return err
	}
	if s.command.json {
		return printJSON(cmd.OutOrStdout(), api.Submitted{ID: id})
	}
	fmt.Fprintln(cmd.OutOrStdout(), id)
	return nil
}

// answerLimit is how long who is interrupted while it submits still waits for the answer: without that it does not know what to cancel.
const answerLimit = 2 * time.Second

// submitAndFollow submits a task and stays with it. An interrupt is heeded from before it is submitted.
func (s *submission) submitAndFollow(cmd *cobra.Command, client *api.Client, doc []byte) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	asking, giveUp := context.WithCancel(cmd.Context())
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(answerLimit, giveUp) })()
	id, err := client.Submit(asking, doc, s.pool)
	if err != nil {
		if asking.Err() != nil {
			return &codeError{codeCancelled, errors.New("stopped before the manager answered: whether it has taken the task is not known, \"mayfly ps\" shows it if so")}
		}
		return err
	}
	return s.follow(ctx, cmd, client, id)
}

// json is the document's, not the flag of the command.
func (s *submission) json(cmd *cobra.Command, args []string) ([]byte, error) {
	return s.document.json(cmd, args)
}

// follow prints a task's output until it has ended, and returns its exit code. The end of ctx is an interrupt.
func (s *submission) follow(ctx context.Context, cmd *cobra.Command, client *api.Client, id string) error {
	ended := make(chan struct{})
	var v manager.View
	var waitErr error
	go func() {
		defer close(ended)
		v, waitErr = client.Wait(ctx, id)
	}()
	last := 0
	if !s.command.json {
		last = s.streamAttempts(ctx, cmd, client, id, ended)
	}
	<-ended
	switch {
	case errors.Is(waitErr, context.Canceled) && cmd.Context().Err() == nil:
		if !s.onCancel {
			return stoppedWaiting(id)
		}
		said, err := client.Cancel(cmd.Context(), id)
		if err != nil {
			return err
		}
		return &codeError{codeCancelled, errors.New(said)}
	case waitErr != nil:
		return waitErr
	}
	if s.command.json {
		if err := printJSON(cmd.OutOrStdout(), v.Result); err != nil {
			return err
		}
	} else if r := v.Result; last < r.Attempt && r.Attempt > 0 {
		// It ended before we could follow, or elsewhere: then the result has the end of its output.
		for _, tail := range []struct {
			w    io.Writer
			text string
		}{{cmd.OutOrStdout(), r.StdoutTail}, {cmd.ErrOrStderr(), r.StderrTail}} {
			to, flush := output(tail.w, s.raw)
			fmt.Fprint(to, tail.text)
			flush()
		}
	}
	return exitOf(v.Result)
}

// stoppedWaiting is what is said to who has interrupted the wait for a task.
func stoppedWaiting(id string) error {
	return &codeError{codeCancelled, fmt.Errorf("stopped waiting; the task goes on: \"mayfly cancel %s\" cancels it", id)}
}

// streamAttempts copies the output of one attempt after the other until the task has ended, and returns the number of the
// last one.
func (s *submission) streamAttempts(ctx context.Context, cmd *cobra.Command, client *api.Client, id string, ended <-chan struct{}) (last int) {
	asked := 0 // the attempt of which it was said that it has begun
	for ctx.Err() == nil {
		v, err := client.Show(ctx, id)
		began := err == nil && (v.Status == manager.Running || v.Status == manager.Stopping || v.Status == manager.Settling || v.Status == manager.Ended)
		for began && v.Attempt > last {
			if last > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "mayfly: attempt %d failed, trying again\n", last)
			}
			next := last + 1
			o := api.LogOptions{Attempt: next, Follow: next == v.Attempt, Tail: -1}
			// An earlier one may have been elsewhere; for the latest one, the result's tails stand in.
			if err := copyOutput(ctx, client, id, o, cmd, true, true, s.raw); err != nil && next == v.Attempt {
				return last
			}
			last = next
		}
		if err == nil && v.Status == manager.Ended {
			return last
		}
		// The manager says when the next one begins, and the events when to look again where it is not here, or not known yet: they tell of all
		// tasks, which are a thousand where many wait. Either ends with the look.
		look, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-ended:
				cancel()
			case <-look.Done():
			}
		}()
		next := last + 1
		switch {
		case err != nil:
		case v.Status == manager.Queued || v.Status == manager.BackingOff: // it is the one before that is shown
			next = v.Attempt + 1
		case !began:
			next = v.Attempt
		}
		if next != asked && client.Begun(look, id, next) == nil {
			asked = next
		} else {
			first := true
			_ = client.Events(look, func([]manager.View) bool { // the first comes at once
				again := first
				first = false
				return again
			})
		}
		cancel()
		select {
		case <-ended:
			if v, err := client.Show(ctx, id); err != nil || v.Attempt <= last {
				return last
			}
		default:
		}
	}
	return last
}

// Exit codes of a task that did not end by itself. 124 is that of timeout(1), 125 to 127 are used by env(1) and shells for
// what did not start, 130 is that of a shell's interrupted command.
const (
	codeTimeout   = 124
	codeRejected  = 125
	codeCancelled = 130
	codeSignal    = 128
)

// exitOf maps a result to the exit code of the one who waited for it. A word is said where the code alone does not tell.
func exitOf(r *queue.Result) error {
	word := func(code int) error {
		return &codeError{code, fmt.Errorf("task %s %s (%s): %s", r.ID, r.State, r.Cause, clean(r.Message))}
	}
	switch {
	case r.State == queue.Succeeded:
		return nil
	case r.State == queue.Cancelled:
		return word(codeCancelled)
	case r.Cause == queue.CauseTimeout || r.Cause == queue.CauseDeadline:
		return word(codeTimeout)
	case r.Cause == queue.CauseExit && r.ExitCode != nil:
		return &codeError{code: *r.ExitCode}
	case r.ExitCode != nil && *r.ExitCode != 0: // for want of memory, room, or a GPU
		return word(*r.ExitCode)
	case r.Signal != "":
		return word(codeSignal + signalNumber(r.Signal))
	}
	return word(codeRejected)
}
