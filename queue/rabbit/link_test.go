package rabbit

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestBackoff has waits grow up to the longest, spread, and shrink by what has held.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wait backoff
		for _, longest := range []time.Duration{awayMax, backoffMax} {
			for want := max(backoffMin, time.Duration(2*wait)); ; want = min(2*want, longest) {
				if d := wait.upTo(longest); d < want/2 || d >= want {
					t.Errorf("a wait of %s, want one between the half and the whole of %s", d, want)
				}
				if want == longest {
					break
				}
			}
		}
		if d := wait.upTo(awayMax); d >= awayMax {
			t.Errorf("where nobody is there, %s", d)
		}
		for range 10 {
			wait.next()
		}
		began := time.Now()
		time.Sleep(backoffMax - time.Second)
		wait.held(began)
		if d := wait.next(); d < time.Second || d >= 2*time.Second {
			t.Errorf("after a connection that has held for nearly as long as the last wait: %s", d)
		}
		began = time.Now()
		time.Sleep(time.Minute)
		wait.held(began)
		if d := wait.next(); d >= backoffMin {
			t.Errorf("after one that has held for long: %s", d)
		}
	})
}

// TestLongestWait has a broker that refuses a host asked seldom, and one that is not there often.
func TestLongestWait(t *testing.T) {
	for err, want := range map[error]time.Duration{
		refused{errors.New("wrong password")}:                         10 * time.Second,
		fmt.Errorf("cannot reach RabbitMQ: %w", syscall.ECONNREFUSED): 2 * time.Second,
	} {
		if d := longest(err); d != want {
			t.Errorf("%v: %s, want %s", err, d, want)
		}
	}
}
