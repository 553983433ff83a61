// Package mayfly submits tasks to Mayfly through RabbitMQ and waits for their results.
//
//	client, err := mayfly.Dial(ctx, "amqp://guest:guest@localhost")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	handle, err := client.Submit(ctx, mayfly.Task{Command: []string{"python3", "sim.py"}, Timeout: time.Hour})
//	if err != nil {
//		return err
//	}
//	result, err := handle.Wait(ctx)
//
// That a task failed, was cancelled or was refused is no error but a [Result]: its State says so, and its Cause why.
//
// # What holds
//
// A task that was submitted is stored: Submit returns after the broker's confirm. While the broker is out of reach, calls
// wait for it for as long as their context lives. A confirm that was lost with its connection is unknown, so the task is
// published again: at least once, as everything in Mayfly, and two copies of a task may run.
//
// Results come by a queue of the client's own ("mayfly.reply." and a random text), named as reply_to. It is neither
// RabbitMQ's direct reply-to nor an exclusive queue, for both end with the connection, and what is published while it is
// away is lost. This queue is durable and replicated, keeps what comes while the client reconnects, and the broker removes
// it once nobody has consumed it for [WithReplyExpiry]. Should it be gone all the same, [Handle.Wait] says so by
// [ErrResultLost] instead of waiting for ever. A binding to mayfly.results for each task would lose nothing either, but costs
// the broker a binding a task.
//
// The results of a client end with it: what comes after [Client.Close] is not kept. A program that wants results of tasks
// that it, or another one, submitted in an earlier life binds a durable queue of its own to the exchange mayfly.results.
//
// The user needs the right to configure and read the queues mayfly\.reply\..*, and to write to mayfly.tasks and mayfly.control.
package mayfly
