package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/mayfly/mayfly/isolation/container"
	"github.com/mayfly/mayfly/manager"
	"github.com/mayfly/mayfly/queue"
	"github.com/mayfly/mayfly/queue/tasktype"
)

// config is what `mayfly run` reads from the environment. The names are written out: with a prefix given to it, envconfig
// would also take a plain HOST or TIMEOUT for ours. A group goes on until the next one begins.
type config struct {
	AMQPURL     string   `group:"The queue" envconfig:"MAYFLY_AMQP_URL" desc:"RabbitMQ as amqp://user:password@host:port/vhost or amqps://...; several, separated by commas, are tried in turn. Empty: the embedded queue of this host"`
	AMQPURLFile string   `envconfig:"MAYFLY_AMQP_URL_FILE" desc:"file that holds this instead, so that the password is in no environment; nobody else may read it"`
	AMQPCA      string   `envconfig:"MAYFLY_AMQP_CA" desc:"file of the authorities that may vouch for the broker (PEM); empty: the system's"`
	AMQPCert    string   `envconfig:"MAYFLY_AMQP_CERT" desc:"file of this host's client certificate (PEM)"`
	AMQPKey     string   `envconfig:"MAYFLY_AMQP_KEY" desc:"file of its key (PEM)"`
	Management  string   `envconfig:"MAYFLY_MANAGEMENT_URL" desc:"RabbitMQ's management API as http://host:15672, which mayfly check asks for policies and the broker's clock, and the manager at its start for the acknowledgement timeout; with a user of its own, or that of MAYFLY_AMQP_URL, who needs the tag management. Empty: they are not looked at"`
	Declare     string   `envconfig:"MAYFLY_DECLARE" default:"auto" desc:"auto: declare missing queues and exchanges; passive: declare nothing shared"`
	Host        string   `group:"The host" envconfig:"MAYFLY_HOST" desc:"this host's name among the hosts; default: the system's host name"`
	Pools       []string `envconfig:"MAYFLY_POOLS" default:"default" desc:"pools to take tasks from, separated by commas"`
	StateDir    string   `envconfig:"MAYFLY_STATE_DIR" desc:"directory of all that is kept; default: /var/lib/mayfly, or ~/.local/state/mayfly where not root"`
	Socket      string   `envconfig:"MAYFLY_SOCKET" desc:"Unix socket of the API; default: /run/mayfly/mayfly.sock, or $XDG_RUNTIME_DIR/mayfly.sock where not root, or ~/.local/state/mayfly/mayfly.sock"`
	Listen      string   `group:"The API by TCP" envconfig:"MAYFLY_LISTEN" desc:"address and port of the API and the dashboard by TCP, as 127.0.0.1:7070; needs MAYFLY_TOKEN_FILE or MAYFLY_TLS_CLIENT_CA. Empty: none"`
	ListenNames []string `envconfig:"MAYFLY_LISTEN_NAMES" desc:"names of this host in DNS by which the API may be asked, separated by commas, beside those in its certificate"`
	TokenFile   string   `envconfig:"MAYFLY_TOKEN_FILE" desc:"file of the tokens that open the API by TCP, one a line; nobody else may read it"`
	TLSCert     string   `envconfig:"MAYFLY_TLS_CERT" desc:"file of the API's certificate (PEM)"`
	TLSKey      string   `envconfig:"MAYFLY_TLS_KEY" desc:"file of its key (PEM)"`
	TLSClientCA string   `envconfig:"MAYFLY_TLS_CLIENT_CA" desc:"file of the authorities that vouch for the API's clients (PEM): only they get in"`
	TypesDir    string   `group:"What messages may ask for" envconfig:"MAYFLY_TYPES_DIR" desc:"directory of task types, one file a type; empty: none"`
	Allow       string   `envconfig:"MAYFLY_ALLOW" default:"commands,types,images" desc:"what messages may ask for: commands, types, images"`
	TaskKeys    string   `envconfig:"MAYFLY_TASK_KEYS" desc:"directory of public keys (Ed25519, NAME.pem): only tasks that were signed with one of them are taken. Empty: no signature is asked for"`
	SigningKey  string   `envconfig:"MAYFLY_SIGNING_KEY" desc:"private key (Ed25519, NAME.pem) with which tasks are signed that are submitted on this host"`
	CPUs        float64  `group:"What is lent to workers" envconfig:"MAYFLY_CPUS" desc:"cores lent to workers; default: all that this process may use, less MAYFLY_RESERVED_CPUS"`
	Memory      size     `envconfig:"MAYFLY_MEMORY" desc:"memory lent to workers, as 8GB or 8GiB; default: all there is, less MAYFLY_RESERVED_MEMORY"`
	Disk        size     `envconfig:"MAYFLY_DISK" desc:"disk space lent to workers; default: what is free under the state directory at start, less MAYFLY_RESERVED_DISK"`
	ReservedCPU float64  `envconfig:"MAYFLY_RESERVED_CPUS" default:"0" desc:"cores kept back for the system"`
	ReservedMem size     `envconfig:"MAYFLY_RESERVED_MEMORY" default:"256MiB" desc:"memory kept back for the system"`
	ReservedDsk size     `envconfig:"MAYFLY_RESERVED_DISK" default:"1GiB" desc:"disk space kept back for the system"`
	Window      int      `envconfig:"MAYFLY_WINDOW" default:"0" desc:"tasks held beyond those that run; 0: twice the cores, at least 8"`
	TaskCPUs    float64  `group:"Tasks that do not say" envconfig:"MAYFLY_TASK_CPUS" default:"1" desc:"cores of a task that asks for none"`
	TaskPIDs    int64    `envconfig:"MAYFLY_TASK_PIDS" default:"4096" desc:"processes and threads of a task that names no pids"`
	FairShare   string   `envconfig:"MAYFLY_FAIR_SHARE" default:"off" desc:"between whom this host is shared equally where more wait than fit: off, user (of RabbitMQ, where messages say it) or label:NAME"`
	Timeout     duration `envconfig:"MAYFLY_TIMEOUT" default:"0" desc:"timeout of a task that names none; 0: none"`
	Grace       duration `envconfig:"MAYFLY_GRACE" default:"10s" desc:"time between SIGTERM and SIGKILL for a task that names none"`
	MaxAttempts int      `envconfig:"MAYFLY_MAX_ATTEMPTS" default:"1" desc:"tries of a task that names no max_attempts, 1 to 100"`
	Backoff     duration `envconfig:"MAYFLY_BACKOFF" default:"10s" desc:"wait before the second try of a task that names none; doubled for each further one, an hour at most"`
	OutputMax   size     `group:"What is kept" envconfig:"MAYFLY_OUTPUT_MAX" default:"16MiB" desc:"bytes kept of each output stream of an attempt"`
	OutputTail  size     `envconfig:"MAYFLY_OUTPUT_TAIL" default:"8KiB" desc:"bytes of the end of each stream that a result carries, at most 1MiB"`
	History     int      `envconfig:"MAYFLY_HISTORY" default:"10000" desc:"ended tasks that are remembered, with their output; at least 1"`
	HistoryAge  duration `envconfig:"MAYFLY_HISTORY_AGE" default:"168h" desc:"how long they are remembered, but for the last one, which stays until another ends. 0: no bound"`
	HistorySize size     `envconfig:"MAYFLY_HISTORY_SIZE" default:"10GiB" desc:"how much they may take, with their output; the oldest go first, the last one never. 0: no bound"`
	OnLost      string   `group:"Leaving" envconfig:"MAYFLY_ON_LOST" default:"keep" desc:"for a task that does not say: keep: a worker runs on while this host is cut off from the broker, and another host may begin the task meanwhile; kill: it is stopped before that"`
	Drain       duration `envconfig:"MAYFLY_DRAIN_TIMEOUT" default:"1m" desc:"how long running tasks may go on after the first SIGTERM"`
	IdleExit    duration `envconfig:"MAYFLY_IDLE_EXIT" default:"0" desc:"how long this host may have nothing to do before the manager leaves; 0: it stays"`
	IdleCommand string   `envconfig:"MAYFLY_IDLE_COMMAND" desc:"what /bin/sh is to run when the manager has left for that reason, as systemctl poweroff"`
	OnStop      string   `envconfig:"MAYFLY_ON_STOP" default:"stop" desc:"stop: at the drain timeout, stop what still runs and return it to the queue; keep: leave running workers to the keeper for the next manager"`
	Sandbox     string   `group:"Confinement" envconfig:"MAYFLY_SANDBOX" default:"on" desc:"on: confine workers as far as this host allows; off: workers are this manager's user and see what it sees (for hosts where all tasks are trusted)"`
	TaskUser    string   `envconfig:"MAYFLY_TASK_USER" desc:"whom workers run as: a user's name, or a range of ids as 70000-70999, of which each worker gets one; default: a range that no system uses"`
	TaskHidden  []string `envconfig:"MAYFLY_TASK_HIDDEN" desc:"directories that workers do not see, beside Mayfly's own, separated by commas; files, too, but one shows again when it is replaced"`
	TaskWrites  []string `envconfig:"MAYFLY_TASK_WRITABLE" desc:"files and directories of the host that workers may write to, as far as their user may; all else but their own is read-only"`
	Containers  string   `group:"Containers" envconfig:"MAYFLY_CONTAINERS" default:"auto" desc:"auto: run images where Docker answers at the start; on: do not start without it; off: run none"`
	Docker      string   `envconfig:"MAYFLY_DOCKER" default:"unix:///var/run/docker.sock" desc:"Docker's address"`
	Pull        string   `envconfig:"MAYFLY_PULL" default:"missing" desc:"when images are pulled: missing, always or never"`
	RegAuth     string   `envconfig:"MAYFLY_REGISTRY_AUTH" desc:"file with the credentials for registries, in the format of Docker's config.json"`
	ContainerNW string   `envconfig:"MAYFLY_CONTAINER_NETWORK" default:"bridge" desc:"Docker's network for containers: bridge, host, none, or the name of one"`
	GPUs        []string `group:"GPUs" envconfig:"MAYFLY_GPUS" default:"all" desc:"GPUs lent to workers, separated by commas: their numbers or UUIDs; all; or none"`
	GPUSharing  string   `envconfig:"MAYFLY_GPU_SHARING" default:"none" desc:"none: a GPU has one task at a time; memory: tasks that name gpu_memory share GPUs, as far as their memory goes"`
	GPUClean    duration `envconfig:"MAYFLY_GPU_CLEAN" default:"10s" desc:"how long a GPU may take to be clean after its task has ended, before it is put in quarantine"`
	GPUCall     duration `envconfig:"MAYFLY_GPU_CALL_TIMEOUT" default:"5s" desc:"how long the GPUs' driver may take to answer"`
	NVML        string   `envconfig:"MAYFLY_NVML" desc:"path of NVIDIA's libnvidia-ml.so.1; empty: where the system has it"`
	LogLevel    string   `group:"The log" envconfig:"MAYFLY_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat   string   `envconfig:"MAYFLY_LOG_FORMAT" default:"auto" desc:"text, json, or auto: text on a terminal, JSON otherwise"`
}

// size is a number of bytes, written as in a task.
type size int64

// Decode implements envconfig.Decoder.
func (s *size) Decode(text string) error {
	n, err := queue.ParseSize(text)
	*s = size(n)
	return err
}

// duration is a time span, written as in a task.
type duration time.Duration

// Decode implements envconfig.Decoder.
func (d *duration) Decode(text string) error {
	n, err := queue.ParseDuration(text)
	*d = duration(n)
	return err
}

// readConfig reads and checks the configuration. Its errors name the variable, the value and the remedy.
func readConfig() (*config, error) {
	var c config
	if err := envconfig.Process("", &c); err != nil {
		var p *envconfig.ParseError
		if errors.As(err, &p) {
			return nil, fmt.Errorf("cannot use %s=%q: %w", p.KeyName, p.Value, wrongNumber(p))
		}
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if err := unknownVariable(&c); err != nil {
		return nil, err
	}
	if err := errors.Join(c.fillIn(), c.readSecrets()); err != nil {
		return nil, err
	}
	return &c, c.check()
}

// wrongNumber says of what is no number what would be right, in place of the parser's words.
func wrongNumber(p *envconfig.ParseError) error {
	var number *strconv.NumError
	switch {
	case !errors.As(p.Err, &number):
		return p.Err
	case errors.Is(number, strconv.ErrRange):
		return errors.New("it is out of range")
	case strings.HasPrefix(p.TypeName, "float"):
		return errors.New("it is a number, as 2 or 0.5")
	}
	return errors.New("it is a whole number, as 3")
}

// ofWorkers are the variables that a worker finds in its environment: a manager that is itself started by a worker sees
// them without being meant.
var ofWorkers = regexp.MustCompile(`^MAYFLY_(TASK_ID|ATTEMPT|POOL|CPUS|MEMORY_BYTES|GPUS|RESULT|SCRATCH|WORKER)$`)

// ofCommands are variables that are for other commands than run.
var ofCommands = []string{"MAYFLY_URL"}

// ofKubernetes are the variables that Kubernetes (and Docker's links) make of a service that is called mayfly, for all pods beside it.
var ofKubernetes = regexp.MustCompile(`^MAYFLY_(SERVICE_(HOST|PORT|PORT_\w+)|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// unknownVariable refuses a variable with our prefix that means nothing: most likely a misspelt one.
func unknownVariable(c *config) error {
	known := map[string]bool{}
	for _, name := range ofCommands {
		known[name] = true
	}
	for _, v := range variables(c) {
		known[v.name] = true
	}
	_, inWorker := os.LookupEnv("MAYFLY_TASK_ID")
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "MAYFLY_") && !known[name] && (!inWorker || !ofWorkers.MatchString(name)) && !strings.HasPrefix(name, "MAYFLY_TEST_") {
			if ofKubernetes.MatchString(name) {
				return fmt.Errorf("cannot use %s: Kubernetes makes it of a service that is called mayfly; set enableServiceLinks: false for the pod, or call the service something else", name)
			}
			return fmt.Errorf("cannot use %s: there is no such variable; see \"mayfly run --help\"", name)
		}
	}
	return nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
var poolPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

func (c *config) fillIn() error {
	if c.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("cannot find the host's name, set MAYFLY_HOST: %w", err)
		}
		c.Host = name
	}
	if c.StateDir == "" {
		c.StateDir = "/var/lib/mayfly"
		if os.Geteuid() != 0 {
			home, err := os.UserHomeDir()
			if err != nil {
				return fmt.Errorf("cannot find a home directory, set MAYFLY_STATE_DIR: %w", err)
			}
			c.StateDir = filepath.Join(home, ".local/state/mayfly")
		}
	}
	abs, err := filepath.Abs(c.StateDir)
	if err != nil {
		return fmt.Errorf("cannot use MAYFLY_STATE_DIR=%q: %w", c.StateDir, err)
	}
	c.StateDir = abs
	if c.Socket == "" {
		c.Socket = defaultSocket()
	}
	for _, list := range [][]string{c.Pools, c.ListenNames, c.GPUs, c.TaskHidden, c.TaskWrites} {
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
	}
	return nil
}

// defaultSocket is where manager and commands meet when nobody says otherwise.
func defaultSocket() string {
	if s := os.Getenv("MAYFLY_SOCKET"); s != "" {
		return s
	}
	if os.Geteuid() == 0 {
		return "/run/mayfly/mayfly.sock"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "mayfly.sock")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local/state/mayfly/mayfly.sock")
	}
	return "mayfly.sock" // nowhere that others may write to
}

// check refuses values that cannot be meant.
func (c *config) check() error {
	wrong := func(name string, value any, remedy string) error {
		return fmt.Errorf("cannot use MAYFLY_%s=%v: %s", name, value, remedy)
	}
	if !hostPattern.MatchString(c.Host) {
		return wrong("HOST", c.Host, "a host's name has 1 to 63 of A-Z a-z 0-9 . _ - and begins with a letter or digit")
	}
	if len(c.Pools) == 0 {
		return wrong("POOLS", `""`, "name at least one pool")
	}
	for i, p := range c.Pools {
		if slices.Contains(c.Pools[:i], p) {
			return wrong("POOLS", strings.Join(c.Pools, ","), fmt.Sprintf("the pool %q is there twice", p))
		}
		if !poolPattern.MatchString(p) {
			return wrong("POOLS", strings.Join(c.Pools, ","), fmt.Sprintf("the pool %q is not 1 to 64 of a-z 0-9 _ - beginning with a letter or digit", p))
		}
	}
	if c.Declare != "auto" && c.Declare != "passive" {
		return wrong("DECLARE", c.Declare, "it is auto or passive")
	}
	if o := manager.OnStop(c.OnStop); o != manager.StopWorkers && o != manager.KeepWorkers {
		return wrong("ON_STOP", c.OnStop, "it is stop or keep")
	}
	if o := queue.OnLost(c.OnLost); o != queue.KeepOnLost && o != queue.KillOnLost {
		return wrong("ON_LOST", c.OnLost, "it is keep or kill")
	}
	allow, err := tasktype.ParseAllow(c.Allow)
	if err != nil {
		return fmt.Errorf("cannot use MAYFLY_ALLOW=%q: %w", c.Allow, err)
	}
	if c.TypesDir == "" && !allow.Commands && !allow.Images { // it would bury all that comes
		return wrong("ALLOW", c.Allow, "this host has no types, and would refuse every task; name the directory of its types in MAYFLY_TYPES_DIR")
	}
	if !(c.CPUs >= 0) || c.CPUs > 65536 || c.CPUs > 0 && c.CPUs < 0.001 {
		return wrong("CPUS", c.CPUs, "it is a number of cores, at least 0.001, or 0 for all")
	}
	if c.Memory > 0 && c.Memory < memoryLeast {
		return wrong("MEMORY", queue.FormatSize(int64(c.Memory)), "it is "+queue.FormatSize(memoryLeast)+" or more: no worker begins in less")
	}
	if !(c.ReservedCPU >= 0) || c.ReservedCPU > 65536 {
		return wrong("RESERVED_CPUS", c.ReservedCPU, "it is a number of cores")
	}
	if !(c.TaskCPUs > 0) || c.TaskCPUs > 65536 {
		return wrong("TASK_CPUS", c.TaskCPUs, "it is a positive number of cores")
	}
	if c.TaskPIDs < 1 || c.TaskPIDs > 4<<20 {
		return wrong("TASK_PIDS", c.TaskPIDs, "it is 1 to 4194304")
	}
	if c.Containers != "auto" && c.Containers != "on" && c.Containers != "off" {
		return wrong("CONTAINERS", c.Containers, "it is auto, on or off")
	}
	if !slices.Contains([]container.Pull{container.PullMissing, container.PullAlways, container.PullNever}, container.Pull(c.Pull)) {
		return wrong("PULL", c.Pull, "it is missing, always or never")
	}
	if c.Sandbox != "on" && c.Sandbox != "off" {
		return wrong("SANDBOX", c.Sandbox, "it is on or off")
	}
	if _, err := c.policy(); err != nil {
		return err
	}
	if c.GPUSharing != "none" && c.GPUSharing != "memory" {
		return wrong("GPU_SHARING", c.GPUSharing, "it is none or memory")
	}
	if c.GPUClean <= 0 {
		return wrong("GPU_CLEAN", time.Duration(c.GPUClean), "it is a positive time")
	}
	if c.GPUCall <= 0 {
		return wrong("GPU_CALL_TIMEOUT", time.Duration(c.GPUCall), "it is a positive time")
	}
	if len(c.GPUs) == 0 {
		return wrong("GPUS", `""`, "name the GPUs by their numbers or UUIDs, or write all or none")
	}
	if len(c.GPUs) > 1 && (slices.Contains(c.GPUs, "all") || slices.Contains(c.GPUs, "none")) {
		return wrong("GPUS", strings.Join(c.GPUs, ","), "all and none stand alone")
	}
	if c.IdleExit < 0 {
		return wrong("IDLE_EXIT", time.Duration(c.IdleExit), "it is a time, 0 for never")
	}
	if c.IdleCommand != "" && c.IdleExit == 0 {
		return wrong("IDLE_COMMAND", c.IdleCommand, "it is of use with MAYFLY_IDLE_EXIT only: set that, or unset this")
	}
	if _, err := manager.ParseFairBy(c.FairShare); err != nil {
		return fmt.Errorf("cannot use MAYFLY_FAIR_SHARE=%w", err)
	}
	if c.Window < 0 || c.Window > 10000 {
		return wrong("WINDOW", c.Window, "it is 0 to 10000")
	}
	if c.MaxAttempts < 1 || c.MaxAttempts > queue.MaxAttempts {
		return wrong("MAX_ATTEMPTS", c.MaxAttempts, fmt.Sprintf("it is 1 to %d", queue.MaxAttempts))
	}
	if c.OutputMax < 1 {
		return wrong("OUTPUT_MAX", c.OutputMax, "it is a positive size")
	}
	if c.OutputTail < 0 || c.OutputTail > 1<<20 {
		return wrong("OUTPUT_TAIL", c.OutputTail, "it is at most 1MiB: results travel as messages")
	}
	if c.History < 1 {
		return wrong("HISTORY", c.History, "it is a number of tasks, at least 1: who waits for a task reads there how it ended")
	}
	if err := c.remote().Check(); err != nil {
		return err
	}
	if (c.AMQPCert == "") != (c.AMQPKey == "") {
		return wrong("AMQP_CERT", c.AMQPCert, "MAYFLY_AMQP_CERT and MAYFLY_AMQP_KEY go together")
	}
	for _, v := range [][2]string{{"AMQP_CA", c.AMQPCA}, {"AMQP_CERT", c.AMQPCert}, {"MANAGEMENT_URL", c.Management}} {
		if c.AMQPURL == "" && v[1] != "" { // else the tasks would come from this host's own queue without a word
			return fmt.Errorf("cannot use MAYFLY_%s: it is for MAYFLY_AMQP_URL, which is not set: set that, or unset this", v[0])
		}
	}
	if _, err := logLevel(c.LogLevel); err != nil {
		return wrong("LOG_LEVEL", c.LogLevel, "it is debug, info, warn or error")
	}
	if c.LogFormat != "auto" && c.LogFormat != "text" && c.LogFormat != "json" {
		return wrong("LOG_FORMAT", c.LogFormat, "it is auto, text or json")
	}
	return nil
}

// printVariables lists all variables with default and description, for `mayfly run --help`.
func printVariables(w io.Writer) {
	tab := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, v := range variables(&config{}) {
		value := v.value
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(tab, "  %s\t%s\t%s\n", v.name, value, v.description)
	}
	_ = tab.Flush()
}
