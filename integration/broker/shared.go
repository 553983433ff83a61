package broker

import (
	"os"
	"sync"
	"testing"
)

var shared struct {
	sync.Mutex
	byVersion map[Version]*sharedBroker
}

type sharedBroker struct {
	once sync.Once
	b    *Broker
	dir  string
	err  error
}

// Shared returns the broker of the version that all tests of this binary share, and starts it when it is the first to ask.
// The package's TestMain must run its tests by [Main].
func Shared(tb testing.TB, v Version) *Broker {
	tb.Helper()
	root, server := v.find(tb)
	shared.Lock()
	if shared.byVersion == nil {
		shared.byVersion = map[Version]*sharedBroker{}
	}
	s := shared.byVersion[v]
	if s == nil {
		s = &sharedBroker{}
		shared.byVersion[v] = s
	}
	shared.Unlock()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "mayfly-broker-"); s.err == nil {
			s.b, s.err = boot(v, root, server, s.dir, Options{})
		}
	})
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.b
}

// Main runs a package's tests and then ends the shared brokers. It stands in for *testing.M:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }
type Main struct{ M *testing.M }

// Run runs the tests.
func (m Main) Run() int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		for _, s := range shared.byVersion {
			if s.b != nil {
				s.b.remove()
			}
			_ = os.RemoveAll(s.dir)
		}
		shared.byVersion = nil
	}()
	return m.M.Run()
}
