package mayfly

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Limits that Submit checks itself. The host checks all others, and its result says what would be right.
const (
	// MaxTask is the largest task in bytes of JSON.
	MaxTask   = 16 << 20
	maxID     = 128
	maxPool   = 64
	maxHeader = 255      // AMQP's limit for a name
	maxTable  = 64 << 10 // all headers must fit one frame, together with those that hosts add
)

// Task is what is to be run. Exactly one of Command, Shell and Type is required. Pointers tell what was not given from a zero:
// &n, or new(5).
type Task struct {
	// ID is 1 to 128 of A-Z a-z 0-9 . _ : @ + = -, beginning with a letter or digit. Submit makes one where it is empty.
	ID string `json:"id,omitempty"`
	// Name is for people: at most 256 bytes of printable text.
	Name string `json:"name,omitempty"`

	// Command is the argument vector; its first element is looked up in the worker's PATH.
	Command []string `json:"command,omitempty"`
	// Shell is a script for /bin/sh -c.
	Shell string `json:"shell,omitempty"`
	// Type names one of the host's task types.
	Type string `json:"type,omitempty"`

	// Params is any value that encoding/json takes: the worker reads it as JSON, and a newline, on standard input.
	Params any `json:"params,omitempty"`
	// Stdin is text for standard input; not together with Params.
	Stdin string `json:"stdin,omitempty"`
	// Image is a container image to run in.
	Image string `json:"image,omitempty"`
	// Environment holds variables; names beginning with MAYFLY_ are reserved.
	Environment map[string]string `json:"environment,omitempty"`
	// Workdir is an absolute path; empty for the task's scratch directory, with an image for the image's own.
	Workdir string `json:"workdir,omitempty"`

	// Resources is what the worker is given, and its limits.
	Resources Resources `json:"resources,omitzero"`
	// Alternatives are up to 16 other resources, each with what differs: the first that can be had now is taken.
	Alternatives []Resources `json:"alternatives,omitempty"`

	// Timeout is the longest running time of an attempt, at most a year; 0 for the host's default.
	Timeout time.Duration `json:"timeout"`
	// Grace is the time between SIGTERM and SIGKILL, at most a year; 0 kills at once, nil is the host's default.
	Grace *time.Duration `json:"grace"`
	// MaxAttempts is the number of tries, 1 to 100; 0 for the host's default.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// Backoff is the wait before the second try, doubled for each further one; no wait is longer than an hour. It may be a year at most; nil is the host's default.
	Backoff *time.Duration `json:"backoff"`

	// OnLost says what becomes of the worker when its host is cut off from the broker: "keep", or "kill" before another host can begin the
	// task; empty for the host's default.
	OnLost string `json:"on_lost,omitempty"`

	// Priority is 0 (last) to 9 (first); nil is 5. 7 and more goes to the pool's high band, 3 and less to its low one.
	Priority *int `json:"priority,omitempty"`
	// Deadline is the time after which the task must not start; zero for none.
	Deadline time.Time `json:"deadline,omitzero"`
	// Labels are for filters; a name is at most 256 bytes of printable text.
	Labels map[string]string `json:"labels,omitempty"`
	// Pool is the pool of hosts to run on, 1 to 64 of a-z 0-9 _ -, beginning with a letter or digit; empty is "default".
	Pool string `json:"pool,omitempty"`

	// Headers are headers of the message, such as traceparent; not beginning with mayfly- or x-, at most 64 KiB in all.
	Headers map[string]string `json:"-"`
}

// Resources is what a worker is given. A zero or nil field was not given.
type Resources struct {
	// CPU is a number of cores, 0.001 to 65536.
	CPU float64 `json:"cpu,omitempty"`
	// Memory is bytes, at least 1 MiB.
	Memory int64 `json:"memory,omitempty"`
	// GPU is a number of GPUs, 0 to 1024; 0 in an alternative does without.
	GPU *int `json:"gpu,omitempty"`
	// GPUMemory is bytes on each GPU; without GPU, on one.
	GPUMemory int64 `json:"gpu_memory,omitempty"`
	// GPUModel is a model, such as "H100", or a MIG profile, such as "1g.10gb".
	GPUModel string `json:"gpu_model,omitempty"`
	// Disk is bytes for scratch and temporary files.
	Disk int64 `json:"disk,omitempty"`
	// Network false leaves the worker a loopback interface only.
	Network *bool `json:"network,omitempty"`
	// PIDs is a number of processes and threads, 1 to 4194304.
	PIDs int `json:"pids,omitempty"`
}

// MarshalJSON writes the task as hosts read it: durations as texts.
func (t Task) MarshalJSON() ([]byte, error) {
	type plain Task
	return json.Marshal(struct {
		plain
		Timeout string `json:"timeout,omitempty"`
		Grace   string `json:"grace,omitempty"`
		Backoff string `json:"backoff,omitempty"`
	}{plain(t), duration(&t.Timeout, t.Timeout != 0), duration(t.Grace, t.Grace != nil), duration(t.Backoff, t.Backoff != nil)})
}

func duration(d *time.Duration, given bool) string {
	if !given {
		return ""
	}
	return d.String()
}

// encode returns the task's document, or says what cannot be sent.
func (t *Task) encode() ([]byte, error) {
	switch {
	case len(t.ID) > maxID:
		return nil, fmt.Errorf("its id has %d bytes: at most %d are accepted", len(t.ID), maxID)
	case len(t.Pool) > maxPool:
		return nil, fmt.Errorf("its pool's name has %d bytes: at most %d are accepted", len(t.Pool), maxPool)
	}
	if field := t.notUTF8(); field != "" { // encoding/json would put other characters in their place
		return nil, fmt.Errorf("its %s is not UTF-8: send other bytes encoded, or in a file", field)
	}
	body, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxTask {
		return nil, fmt.Errorf("it has %d bytes: at most %d are accepted, so send a reference to large data", len(body), MaxTask)
	}
	return body, nil
}

// table returns the task's headers, or says what cannot be sent.
func (t *Task) table() (amqp.Table, error) {
	table, size := make(amqp.Table, len(t.Headers)), 0
	for name, value := range t.Headers {
		if len(name) > maxHeader {
			return nil, fmt.Errorf("a header's name has %d bytes: at most %d are accepted", len(name), maxHeader)
		}
		table[name] = value
		size += len(name) + len(value) + 6 // their lengths and a type
	}
	if size > maxTable {
		return nil, fmt.Errorf("its headers have %d bytes: at most %d are accepted", size, maxTable)
	}
	return table, nil
}

// notUTF8 names a field whose text is not UTF-8, or none. Params is the caller's to encode.
func (t *Task) notUTF8() string {
	texts := map[string]string{
		"id": t.ID, "name": t.Name, "shell": t.Shell, "type": t.Type, "stdin": t.Stdin, "image": t.Image, "workdir": t.Workdir,
		"pool": t.Pool, "resources.gpu_model": t.Resources.GPUModel,
	}
	for i, arg := range t.Command {
		texts["command["+strconv.Itoa(i)+"]"] = arg
	}
	for name, value := range t.Environment {
		texts["environment."+strconv.Quote(name)] = name + value
	}
	for name, value := range t.Labels {
		texts["labels."+strconv.Quote(name)] = name + value
	}
	for i, r := range t.Alternatives {
		texts["alternatives["+strconv.Itoa(i)+"].gpu_model"] = r.GPUModel
	}
	for field, text := range texts {
		if !utf8.ValidString(text) {
			return field
		}
	}
	return ""
}

// routingKey leads to the queue of the task's pool and band.
func (t *Task) routingKey() string {
	key := t.Pool
	if key == "" {
		key = "default"
	}
	switch {
	case t.Priority == nil:
	case *t.Priority >= 7:
		key += ".high"
	case *t.Priority <= 3:
		key += ".low"
	}
	return key
}
