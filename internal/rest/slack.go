package rest

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// Slack is how late a timer of a thread that is no real-time one may be by itself, in Linux (timerslack_ns in proc_pid_timerslack_ns(5)); calm is how late those
// of a process that rests may be.
const (
	Slack = 50 * time.Microsecond
	calm  = 20 * time.Millisecond
)

// Slacken lets the timers of all threads be late by some hundredths of a second, Tighten has them be on time again: as they were when the process began. What is waited for otherwise,
// connections for example, is not concerned. Threads of others than root cannot be told: then nothing changes.
func Slacken() { setSlack(calm.Nanoseconds()) }

// Tighten ends what Slacken began.
func Tighten() { setSlack(initial) }

// initial is what this process was given, which service managers may set (TimerSlackNSec in systemd.exec(5)).
var initial = func() int64 {
	text, err := os.ReadFile("/proc/self/timerslack_ns")
	var n int64
	if _, failed := fmt.Sscan(string(bytes.TrimSpace(text)), &n); err != nil || failed != nil || n <= 0 {
		return Slack.Nanoseconds()
	}
	return n
}()

func setSlack(nanoseconds int64) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		// One that has ended needs none. Threads have the file, though below /proc alone.
		_ = os.WriteFile("/proc/"+t.Name()+"/timerslack_ns", fmt.Append(nil, nanoseconds), 0)
	}
}
