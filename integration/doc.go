// Package integration holds the black-box tests of the built binary, against real brokers and on the embedded queue.
//
// The binary is built once per run. Each test has its own state directory, host name and, on RabbitMQ, its own virtual host,
// and ends with a look at what is left: no process, no control group, no socket.
package integration
