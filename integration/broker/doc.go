// Package broker runs real RabbitMQ brokers for tests.
//
// # Theory of operation
//
// Each broker is one Erlang node in its own PID and mount namespaces: the node is the first process of the PID namespace
// and dies with the test process (parent death signal), and the kernel then ends epmd and all other helpers with it. The
// version from the distribution's package runs from the host's root, the others from a Debian tree by chroot. In either
// case the folders /etc/rabbitmq, /var/lib/rabbitmq and /var/log/rabbitmq are bind mounts of a temporary folder, visible
// to that broker alone, so that many brokers of all versions run side by side and nothing is left mounted.
//
// integration/setup.sh installs what is needed. Where a version is missing the test is skipped, or fails where the
// environment variable MAYFLY_TEST_REQUIRE is 1.
//
// [Shared] is the usual way in: one broker per version and test binary, with a fresh virtual host per test
// ([Broker.Vhost]). [Start] gives a test its own broker, to stop and kill. [StartCluster] makes one of several nodes, each of which is a host on a
// network of the test's own (a bridge and veth pairs in network namespaces), where it can be cut off from the others.
package broker
