package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mayfly/mayfly/api"
	"github.com/mayfly/mayfly/queue"
)

// many submits a document a line, and with --wait waits for all of them.
func (s *submission) many(cmd *cobra.Command, client *api.Client) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	file, err := openFile(cmd, s.lines)
	if err != nil {
		return err
	}
	defer file.Close()
	bars := newBars(cmd.ErrOrStderr(), s.quiet)
	defer bars.stop()
	submitting := bars.bar("submitted")

	var waits *awaited
	var ending bar
	if s.wait {
		ending = bars.bar("ended")
		waits = s.await(ctx, cmd, client, bars, ending)
	}
	taken, refused := 0, 0
	lines := &endedEarly{Reader: file}
	err = client.Batch(ctx, lines, s.pool, func(a api.Submitted) bool {
		submitting.one()
		switch {
		case a.Error != "":
			refused++
			bars.say("line %d: %s", a.Line, clean(a.Error))
			return true
		case s.wait:
			waits.add(a.ID)
		case s.quiet:
		case s.command.json:
			_ = printJSONLine(cmd.OutOrStdout(), a)
		default:
			fmt.Fprintln(cmd.OutOrStdout(), a.ID)
		}
		taken++
		return true
	})
	submitting.done(taken + refused)
	if broken := lines.broken(); err == nil && broken != nil {
		err = fmt.Errorf("cannot read %s to its end: %w; %d tasks of it were submitted", s.lines, broken, taken)
	}
	switch {
	case s.wait && err != nil:
		stop()
		_ = waits.all() // the first error is that of the submission
	case s.wait:
		ending.total(taken)
		err = waits.all()
		ending.done(taken)
		bars.stop()
		fmt.Fprintf(cmd.ErrOrStderr(), "%d tasks: %s\n", taken+refused, waits.summary(refused))
		if err == nil && waits.counts[queue.Succeeded] < taken+refused {
			err = &codeError{code: codeFailure}
		}
	}
	bars.stop()
	switch {
	case errors.Is(err, context.Canceled):
		return &codeError{codeCancelled, errors.New("stopped waiting; the tasks that were submitted go on")}
	case err == nil && refused > 0:
		return fmt.Errorf("%d of %d documents were refused", refused, taken+refused)
	}
	return err
}

// endedEarly is a file that ends where it cannot be read on: the documents before that are submitted, and their ids are told.
type endedEarly struct {
	io.Reader
	mu  sync.Mutex // it is read elsewhere than its end is asked for
	err error
}

func (e *endedEarly) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = plainCause(err)
	return n, io.EOF
}

func (e *endedEarly) broken() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// bars are progress bars on a terminal, and nothing elsewhere.
type bars struct {
	w      io.Writer
	mu     sync.Mutex      // guards w, to which submitting and waiting write at once
	writer progress.Writer // nil where nothing is shown
	once   sync.Once
}

func newBars(w io.Writer, quiet bool) *bars {
	b := &bars{w: w}
	if terminal(w) == 0 || quiet {
		return b
	}
	b.writer = progress.NewWriter()
	b.writer.SetOutputWriter(w)
	b.writer.SetAutoStop(false)
	b.writer.SetTrackerLength(30)
	b.writer.SetMessageLength(10)
	b.writer.SetUpdateFrequency(100 * time.Millisecond)
	b.writer.SetStyle(progress.StyleBlocks)
	b.writer.Style().Visibility.Percentage = true
	b.writer.Style().Visibility.Speed = true
	go b.writer.Render()
	return b
}

// say prints a line above the bars.
func (b *bars) say(format string, args ...any) {
	if b.writer != nil {
		b.writer.Log(format, args...)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.w, format+"\n", args...)
}

// stop draws the bars for the last time. It may be called more than once.
func (b *bars) stop() {
	b.once.Do(func() {
		if b.writer == nil {
			return
		}
		b.writer.Stop()
		for b.writer.IsRenderInProgress() {
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the library has no other sign of the last drawing
		}
	})
}

// bar is one of them.
type bar struct{ tracker *progress.Tracker }

func (b *bars) bar(name string) bar {
	if b.writer == nil {
		return bar{}
	}
	t := &progress.Tracker{Message: name}
	b.writer.AppendTracker(t)
	return bar{t}
}

func (b bar) one() {
	if b.tracker != nil {
		b.tracker.Increment(1)
	}
}

func (b bar) total(n int) {
	if b.tracker != nil {
		b.tracker.UpdateTotal(int64(n))
	}
}

func (b bar) done(n int) {
	if b.tracker != nil {
		b.tracker.UpdateTotal(int64(n))
		b.tracker.MarkAsDone()
	}
}

// signalNumber is the number of a signal by its name, 0 where there is none.
func signalNumber(name string) int {
	if n := unix.SignalNum(name); n != 0 {
		return int(n)
	}
	var n syscall.Signal
	if _, err := fmt.Sscanf(name, "SIG%d", &n); err != nil {
		return 0
	}
	return int(n)
}

func (c *command) wait() *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a task to end and exit with its code", Args: cobra.ExactArgs(1),
		Long:    "Wait for a task to end and exit as \"submit --wait\" does; see \"mayfly help exit-codes\".",
		Example: "  mayfly wait job_456",
		RunE: func(cmd *cobra.Command, args []string) error {
			client := c.client()
			defer client.Close()
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			v, err := client.Wait(ctx, args[0])
			switch {
			case errors.Is(err, context.Canceled) && cmd.Context().Err() == nil:
				return stoppedWaiting(args[0])
			case err != nil:
				return err
			}
			if c.json {
				if err := printJSON(cmd.OutOrStdout(), v.Result); err != nil {
					return err
				}
			}
			return exitOf(v.Result)
		},
	}
	c.jsonFlag(cmd)
	return cmd
}
