package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mayfly/mayfly/queue"
)

// document gathers a task from flags.
type document struct {
	shell, taskType, params, image, name, id, workdir, stdin, stdinFile string
	environment, labels                                                 []string
	cpu                                                                 float64
	memory, disk, gpuMemory, gpuModel                                   string
	gpu, pids, maxAttempts, priority                                    int
	timeout, grace, backoff, deadline                                   string
	noNetwork                                                           bool
}

// flags adds the flags of a task.
func (d *document) flags(f *pflag.FlagSet) {
	f.StringVar(&d.shell, "shell", "", "a `SCRIPT` for /bin/sh -c instead of a command")
	f.StringVar(&d.taskType, "type", "", "a task type of the host instead of a command")
	f.StringVar(&d.params, "params", "", "`JSON` for the worker's standard input")
	f.StringVar(&d.image, "image", "", "the container image to run in")
	f.StringVar(&d.name, "name", "", "a name for people")
	f.StringVar(&d.id, "id", "", "the task's id (default: a new one)")
	f.StringArrayVarP(&d.environment, "env", "e", nil, "`NAME=VALUE` for the worker's environment, or NAME to hand on our own, which keeps it out of the list of processes; repeatable")
	f.StringVar(&d.workdir, "workdir", "", "the working directory (default: the task's own scratch directory; with --image, the image's own)")
	f.StringVar(&d.stdin, "stdin", "", "`TEXT` for standard input")
	f.StringVar(&d.stdinFile, "stdin-file", "", "a `FILE` for standard input; - is ours")
	f.Float64Var(&d.cpu, "cpu", 0, "`CORES`, possibly fractional")
	f.StringVar(&d.memory, "memory", "", "memory, as 8GB or 512MiB")
	f.StringVar(&d.disk, "disk", "", "disk space, as 10GB")
	f.IntVar(&d.gpu, "gpu", 0, "number of GPUs")
	f.StringVar(&d.gpuMemory, "gpu-memory", "", "GPU memory, as 20GB")
	f.StringVar(&d.gpuModel, "gpu-model", "", "GPU model, as H200")
	f.IntVar(&d.pids, "pids", 0, "the most processes")
	f.StringVar(&d.timeout, "timeout", "", "the longest running time of an attempt, as 2h or 90s")
	f.StringVar(&d.grace, "grace", "", "the time between SIGTERM and SIGKILL")
	f.IntVar(&d.maxAttempts, "max-attempts", 0, "how often it may be tried")
	f.StringVar(&d.backoff, "backoff", "", "the wait before the second try, doubled for each further one, an hour at most")
	f.IntVar(&d.priority, "priority", 0, "0 (last) to 9 (first)")
	f.StringVar(&d.deadline, "deadline", "", "the `TIME` (RFC 3339) after which it must not start")
	f.StringArrayVarP(&d.labels, "label", "l", nil, "`KEY=VALUE`; repeatable")
	f.BoolVar(&d.noNetwork, "no-network", false, "run without network")
}

// json makes the task document of the flags that were given, for the command in args.
func (d *document) json(cmd *cobra.Command, args []string) ([]byte, error) {
	if err := d.text(cmd, args); err != nil {
		return nil, err
	}
	given := cmd.Flags().Changed
	switch {
	case math.IsNaN(d.cpu) || math.IsInf(d.cpu, 0):
		return nil, usage("--cpu is %g: it must be a number of cores, as 2 or 0.5", d.cpu)
	case given("stdin") && given("stdin-file"):
		return nil, usage("--stdin and --stdin-file exclude each other: there is one standard input")
	}
	doc, resources := map[string]any{}, map[string]any{}
	put := func(into map[string]any, flag, field string, value any) {
		if given(flag) {
			into[field] = value
		}
	}
	if len(args) > 0 {
		doc["command"] = args
	}
	put(doc, "shell", "shell", d.shell)
	put(doc, "type", "type", d.taskType)
	put(doc, "image", "image", d.image)
	put(doc, "name", "name", d.name)
	put(doc, "id", "id", d.id)
	put(doc, "workdir", "workdir", d.workdir)
	put(doc, "stdin", "stdin", d.stdin)
	put(doc, "timeout", "timeout", numberOr(d.timeout))
	put(doc, "grace", "grace", numberOr(d.grace))
	put(doc, "max-attempts", "max_attempts", d.maxAttempts)
	put(doc, "backoff", "backoff", numberOr(d.backoff))
	put(doc, "priority", "priority", d.priority)
	put(doc, "deadline", "deadline", d.deadline)
	put(resources, "cpu", "cpu", d.cpu)
	put(resources, "memory", "memory", numberOr(d.memory))
	put(resources, "disk", "disk", numberOr(d.disk))
	put(resources, "gpu", "gpu", d.gpu)
	put(resources, "gpu-memory", "gpu_memory", numberOr(d.gpuMemory))
	put(resources, "gpu-model", "gpu_model", d.gpuModel)
	put(resources, "pids", "pids", d.pids)
	if d.noNetwork {
		resources["network"] = false
	}
	if len(resources) > 0 {
		doc["resources"] = resources
	}
	if given("params") {
		if !json.Valid([]byte(d.params)) {
			return nil, usage("--params is %q: it must be JSON, as '{\"key\": \"value\"}'", d.params)
		}
		doc["params"] = json.RawMessage(d.params)
	}
	if given("stdin-file") {
		text, err := readFile(cmd, d.stdinFile)
		if err != nil {
			return nil, err
		}
		if err := utf8Only("--stdin-file", string(text)); err != nil {
			return nil, err
		}
		doc["stdin"] = string(text)
	}
	for flag, list := range map[string][]string{"env": d.environment, "label": d.labels} {
		pairs := map[string]string{}
		for _, pair := range list {
			name, value, ok := strings.Cut(pair, "=")
			if !ok && flag == "env" {
				if value, ok = os.LookupEnv(name); !ok {
					return nil, usage("--env is %q: there is no such variable here; give NAME=VALUE", pair)
				}
			}
			if !ok {
				return nil, usage("--%s is %q: it must be NAME=VALUE", flag, pair)
			}
			if err := utf8Only("--"+flag+" "+name, value); err != nil {
				return nil, err
			}
			pairs[name] = value
		}
		if len(pairs) > 0 {
			doc[map[string]string{"env": "environment", "label": "labels"}[flag]] = pairs
		}
	}
	if len(args) == 0 && !given("shell") && !given("type") {
		return nil, usage("nothing to run: give a command after --, or --shell, --type, --file or --lines; see \"%s --help\"", cmd.CommandPath())
	}
	return json.Marshal(doc)
}

// text refuses what JSON would change without a word: values that are no text.
func (d *document) text(cmd *cobra.Command, args []string) error {
	var first error
	check := func(what, value string) {
		if err := utf8Only(what, value); err != nil && first == nil {
			first = err
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, value := range list.GetSlice() {
				check("--"+f.Name, value)
			}
			return
		}
		check("--"+f.Name, f.Value.String())
	})
	for i, arg := range args {
		check(fmt.Sprintf("word %d of the command", i+1), arg)
	}
	return first
}

// utf8Only refuses a value that is no text.
func utf8Only(what, value string) error {
	for i, r := range value {
		if _, size := utf8.DecodeRuneInString(value[i:]); r == utf8.RuneError && size == 1 {
			return usage("%s is not UTF-8 (byte %d is 0x%02x), which a task document has to be: write the bytes to a file that the worker reads, or encode them, as base64",
				what, i+1, value[i])
		}
	}
	return nil
}

// numberOr returns a plain number as such: seconds, or bytes. All else is text with a unit.
func numberOr(text string) any {
	if _, err := strconv.ParseFloat(text, 64); err == nil && json.Valid([]byte(text)) {
		return json.Number(text)
	}
	return text
}

// given lists the flags of a task that were given.
func (d *document) given(cmd *cobra.Command) []string {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(document).flags(own)
	var names []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if own.Lookup(f.Name) != nil {
			names = append(names, "--"+f.Name)
		}
	})
	return names
}

// openFile opens a file, or standard input for "-".
func openFile(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", name, plainCause(err))
	}
	return f, nil
}

// plainCause is the cause of a file's error without the file's name, which is said beside it.
func plainCause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// readFile reads a file that is to be a task document, or to be in one, no further than one may go.
func readFile(cmd *cobra.Command, name string) ([]byte, error) {
	f, err := openFile(cmd, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, queue.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, plainCause(err))
	}
	if len(text) > queue.MaxBody {
		return nil, fmt.Errorf("cannot submit %s: it has more than %d bytes (%s), the most that a task document may have: have the worker read large data from where it lies",
			name, queue.MaxBody, queue.FormatSize(queue.MaxBody))
	}
	return text, nil
}
