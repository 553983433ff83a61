package broker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mayfly/mayfly/integration/need"
)

// Version is one of the supported RabbitMQ versions.
type Version string

// The versions: one per generation whose behaviour differs.
const (
	V310 Version = "3.10"
	V40  Version = "4.0"
	V43  Version = "4.3"
)

// Versions lists all versions, oldest first.
var Versions = []Version{V310, V40, V43}

// serverGlob finds the server below the root of a system; the version stands in the folder's name.
const serverGlob = "usr/lib/rabbitmq/lib/rabbitmq_server-"

// root returns the root folder of the system that holds the version.
func (v Version) root() string {
	switch v {
	case V40:
		return filepath.Join(need.Cache(), "debian-13")
	case V43:
		return filepath.Join(need.Cache(), "debian-testing")
	default:
		// The distribution's own on Debian 12, a tree elsewhere.
		if own, _ := filepath.Glob("/" + serverGlob + string(V310) + ".*"); len(own) == 0 {
			return filepath.Join(need.Cache(), "debian-12")
		}
		return "/"
	}
}

// find returns the version's root and the server's folder as seen from that root. It skips or fails the test where the
// version is not installed.
func (v Version) find(tb testing.TB) (root, server string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		need.Missing(tb, "RabbitMQ %s cannot run here: the tests' brokers need root (namespaces and bind mounts)", v)
	}
	root = v.root()
	found, _ := filepath.Glob(filepath.Join(root, serverGlob+string(v)+".*"))
	if len(found) == 0 {
		need.Missing(tb, "RabbitMQ %s is not installed below %s: run integration/setup.sh", v, root)
	}
	return root, "/" + serverGlob[:len(serverGlob)-len("rabbitmq_server-")] + filepath.Base(found[0])
}

// Root is the root folder of the system that holds the version.
func (v Version) Root(tb testing.TB) string {
	tb.Helper()
	root, _ := v.find(tb)
	return root
}
