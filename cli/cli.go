// Package cli is the command line. All commands but run, keeper and check speak to the manager through its API.
//
// Exit codes: 0 success, 1 failure, 2 wrong usage. `submit --wait` has those of `mayfly help exit-codes`.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/mayfly/mayfly/api"
)

// RunArgs are the arguments of `mayfly run`; there are none beside the environment.
type RunArgs struct{}

// Program is what the commands need from main.
type Program struct {
	Version string
	// Run is the manager's life; it deals with signals itself.
	Run func(ctx context.Context, args RunArgs) error
	// Keeper is the keeper's life.
	Keeper func(args []string) error
	// GPUHelper is the life of the process that speaks to the GPUs' driver.
	GPUHelper func(args []string) error
	// RunHelp prints the settings.
	RunHelp func(io.Writer)
	// Check looks at the host and reports whether all is well.
	Check func(ctx context.Context, w io.Writer, asJSON bool) (bool, error)
	// Depth asks the broker how many messages lie in the queues "<pool>.<band>".
	Depth func(ctx context.Context) (map[string]int, error)
	// Socket is the manager's socket unless --socket says otherwise.
	Socket func() string
}

// codeError ends the program with a code, and with no word beyond err's.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

const (
	codeFailure = 1
	codeUsage   = 2
)

// usage marks an error of the caller.
func usage(format string, args ...any) error {
	return &codeError{codeUsage, fmt.Errorf(format, args...)}
}

// Execute runs the command that the arguments name and returns the exit code.
func Execute(p Program) int {
	return execute(New(p), os.Stdout)
}

// execute runs a command that prints to a file. What could not be written there is a failure, though all else went well: an id that is lost on a full disk
// is a task that nobody knows.
func execute(cmd *cobra.Command, to *os.File) int {
	out := &printed{file: to}
	cmd.SetOut(out)
	err := cmd.ExecuteContext(context.Background())
	if failed := out.failure(); failed != nil && (err == nil || errors.Is(err, failed)) {
		err = fmt.Errorf("cannot print: %w", plainCause(failed))
	}
	return codeOf(cmd, err)
}

// printed is a file that remembers its first error.
type printed struct {
	file *os.File
	mu   sync.Mutex
	err  error
}

// Write implements io.Writer.
func (p *printed) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = cmp.Or(p.err, err)
	}
	return n, err
}

// Fd lets terminal look at the file.
func (p *printed) Fd() uintptr { return p.file.Fd() }

func (p *printed) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// codeOf says on standard error what went wrong, if anything did, and returns the exit code.
func codeOf(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	var code *codeError
	if !errors.As(err, &code) {
		code = &codeError{codeFailure, err}
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "mayfly:", clean(text))
	}
	return code.code
}

// command is what all commands share.
type command struct {
	Program
	socket string
	json   bool
}

// New returns the root command.
func New(p Program) *cobra.Command {
	c := &command{Program: p}
	root := &cobra.Command{
		Use:   "mayfly",
		Short: "Run tasks from a queue, each in a short-lived worker of its own",
		Long: `Mayfly takes tasks from RabbitMQ, or from its own embedded queue, gives each one a
short-lived worker, reaps it, and reports one honest outcome.

Start the manager with "mayfly run"; the other commands speak to it: through its socket, or where
MAYFLY_URL is set (https://host:7070) by TCP, with the token in MAYFLY_TOKEN_FILE.`,
		Version:       p.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see \"%s --help\"", wrongValue(err), cmd.CommandPath())
	})
	root.PersistentFlags().StringVar(&c.socket, "socket", "", "the manager's `PATH` (default $MAYFLY_SOCKET, or the system's)")
	root.AddCommand(c.run(), c.keeper(), c.gpuHelper(), c.gpus(), c.submit(), c.ps(), c.show(), c.explain(), c.wait(), c.logs(), c.cancel(), c.drain(), c.dead(), c.hosts(), c.info(), c.demand(),
		c.check(), c.version(), exitCodes())
	wrapArgs(root)
	return root
}

// wrongValue says of a flag whose value cannot be read what would be right, in place of the parser's words.
func wrongValue(err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	right := map[string]string{"int": "it must be a whole number, as 3", "float64": "it must be a number, as 2 or 0.5", "bool": "it must be true or false",
		"duration": "it must be a duration, as 90s or 2h30m"}[wrong.GetFlag().Value.Type()]
	if right == "" {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		right = "it is out of range"
	}
	return fmt.Errorf("--%s is %q: %s", wrong.GetFlag().Name, wrong.GetValue(), right)
}

// wrapArgs makes wrong arguments a matter of usage.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage("%w; see \"%s --help\"", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// client returns the client of the manager.
func (c *command) client() *api.Client {
	if c.socket != "" {
		return api.Dial(c.socket)
	}
	if address := os.Getenv("MAYFLY_URL"); address != "" {
		return api.DialURL(address, os.Getenv("MAYFLY_TOKEN_FILE"))
	}
	return api.Dial(c.Socket())
}

// jsonFlag adds --json to a reading command.
func (c *command) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
}

// interruptible returns a context that the first Ctrl-C ends. The second one ends the program.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// terminal returns the width of the terminal that w is, or 0.
func terminal(w io.Writer) int {
	if s, ok := w.(*screen); ok {
		return s.width
	}
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// colours reports whether w is to be coloured.
func colours(w io.Writer) bool { return terminal(w) > 0 && os.Getenv("NO_COLOR") == "" }

func exitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "The exit codes of all commands", Long: `All commands:
  0    success
  1    failure: one sentence on standard error says why
  2    wrong usage

"mayfly submit --wait" and "mayfly wait" with one task:
  n    the worker's own exit code, whatever its cause (memory, disk or a GPU may have been)
  128+n  the worker was killed by signal n, at its memory limit by 9
  124  the task ran longer than its timeout, or did not start before its deadline
  125  the task was rejected, could not be started, or was lost with its host
  130  the task was cancelled, or Ctrl-C ended the wait for it

"mayfly submit --lines FILE --wait":
  0    all tasks succeeded
  1    some did not, or are not known any more`}
}
