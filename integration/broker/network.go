package broker

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// network is a switch, to which the nodes of a cluster and this machine are wired: each node is a host with an address. The switch has a
// namespace of its own too, where no rules are that others have made (Docker's drop what is forwarded). Processes that do nothing hold the
// namespaces; when they end, by the end of the test at the latest, all of it is gone.
type network struct {
	number  int
	held    io.Closer  // the reservation of the number
	holders []*process // of the nodes; the last one is the switch's
}

// newNetwork wires so many nodes up. Addresses are of the block that is reserved for tests of networks (RFC 2544).
func newNetwork(nodes int) (*network, error) {
	number, held, err := reserveNetwork()
	if err != nil {
		return nil, err
	}
	n := &network{number: number, held: held}
	for range nodes + 1 {
		cmd := exec.Command("/bin/sleep", "infinity")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		holder, err := launch(cmd, &bytes.Buffer{})
		if err != nil {
			n.remove()
			return nil, err
		}
		n.holders = append(n.holders, holder)
	}
	const wire = `set -eu
number=$1 switch=$2; shift 2
in_switch() { nsenter "--net=/proc/$switch/ns/net" "$@"; }
in_switch ip link add bridge type bridge
in_switch ip link set bridge up
i=0
for node in "$@"; do
	i=$((i + 1))
	in_switch ip link add "port$i" type veth peer name eth0 netns "$node"
	in_switch ip link set "port$i" master bridge up
	nsenter "--net=/proc/$node/ns/net" sh -ec "ip link set lo up; ip link set eth0 up; ip address add 198.18.$number.$i/24 dev eth0"
done
ip link add "mayfly$number" type veth peer name outside netns "$switch"
in_switch ip link set outside master bridge up
ip link set "mayfly$number" up
ip address add "198.18.$number.254/24" dev "mayfly$number"`
	args := []string{strconv.Itoa(n.number), n.pid(nodes)}
	for i := range nodes {
		args = append(args, n.pid(i))
	}
	if err := shell(wire, args...); err != nil {
		n.remove()
		return nil, fmt.Errorf("cannot wire a network: %w", err)
	}
	return n, nil
}

func (n *network) pid(i int) string  { return strconv.Itoa(n.holders[i].cmd.Process.Pid) }
func (n *network) file(i int) string { return "/proc/" + n.pid(i) + "/ns/net" }
func (n *network) ip(i int) string   { return fmt.Sprintf("198.18.%d.%d", n.number, i+1) }

// part drops what goes between a node and the others.
func (n *network) part(i int) error {
	var others []string
	for j := range len(n.holders) - 1 {
		if j != i {
			others = append(others, n.ip(j))
		}
	}
	const rules = `nsenter "--net=$1" nft -f - <<END
table ip parted {
	chain in { type filter hook input priority 0; ip saddr { $2 } drop; }
	chain out { type filter hook output priority 0; ip daddr { $2 } drop; }
}
END`
	if err := shell(rules, n.file(i), strings.Join(others, ", ")); err != nil {
		return fmt.Errorf("cannot cut a node off: %w", err)
	}
	return nil
}

// rejoin ends a part.
func (n *network) rejoin(i int) error {
	if err := shell(`nsenter "--net=$1" nft delete table ip parted`, n.file(i)); err != nil {
		return fmt.Errorf("cannot let a node rejoin: %w", err)
	}
	return nil
}

// remove ends the processes that hold the namespaces. The nodes must have ended before.
func (n *network) remove() {
	for _, holder := range n.holders {
		_ = holder.cmd.Process.Kill()
		<-holder.done
	}
	_ = n.held.Close()
}

// shell runs a script with arguments.
func shell(script string, args ...string) error {
	out, err := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
