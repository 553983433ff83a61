// Submits a task to Mayfly and waits for its result, then submits a long one and cancels it.
//
// Needs Java 17, com.rabbitmq:amqp-client, org.slf4j:slf4j-api and com.google.code.gson:gson, and RabbitMQ's URL in AMQP_URL. With the
// jars of Debian (librabbitmq-client-java, libgoogle-gson-java):
//
//   cd /usr/share/java && java -cp amqp-client.jar:slf4j-api.jar:gson.jar Submit.java

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;

public class Submit {
    private final Channel channel;
    private final String replies = "my-app.replies." + UUID.randomUUID();
    private final Map<String, CompletableFuture<JsonObject>> waiting = new ConcurrentHashMap<>(); // by correlation id
    private final AtomicBoolean returned = new AtomicBoolean();

    Submit(Connection connection) throws Exception {
        channel = connection.createChannel();
        channel.confirmSelect();
        channel.addReturnListener(message -> returned.set(true));
        // A queue of our own for results. It outlives the connection, so that nothing is lost while we reconnect, and the
        // broker removes it an hour after its last consumer.
        channel.queueDeclare(replies, true, false, false, Map.of("x-queue-type", "quorum", "x-expires", 3600 * 1000));
        Channel receiving = connection.createChannel(); // a channel is for one thread at a time
        receiving.basicConsume(replies, (tag, message) -> {
            var result = JsonParser.parseString(new String(message.getBody(), StandardCharsets.UTF_8)).getAsJsonObject();
            var future = waiting.remove(message.getProperties().getCorrelationId());
            if (future != null) {
                future.complete(result);
            }
            receiving.basicAck(message.getEnvelope().getDeliveryTag(), false);
        }, tag -> waiting.values().forEach(f -> f.completeExceptionally(new IllegalStateException("the reply queue was deleted"))));
    }

    CompletableFuture<JsonObject> submit(String id, String task) throws Exception {
        var result = new CompletableFuture<JsonObject>();
        waiting.put(id, result);
        publish("mayfly.tasks", "default", task, new BasicProperties.Builder()
            .deliveryMode(2) // kept on disk
            .messageId(id)
            .timestamp(new Date()) // a cancellation is for tasks that are older than it
            .replyTo(replies)
            .correlationId(id) // comes back with the result
            .build());
        return result;
    }

    void cancel(String id) throws Exception {
        publish("mayfly.control", "cancel", "{\"cancel\": \"" + id + "\"}", new BasicProperties());
    }

    /** Returns when the broker has stored the message. It returns a mandatory one that no queue takes before it confirms it. */
    private void publish(String exchange, String key, String content, BasicProperties properties) throws Exception {
        returned.set(false);
        channel.basicPublish(exchange, key, true, properties, content.getBytes(StandardCharsets.UTF_8));
        channel.waitForConfirmsOrDie(30_000);
        if (returned.get()) {
            throw new IllegalStateException("no queue takes " + key + " of " + exchange + ": no host has ever served the pool");
        }
    }

    public static void main(String[] args) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv("AMQP_URL"));
        try (var connection = factory.newConnection()) {
            var client = new Submit(connection);

            var id = "java-" + UUID.randomUUID();
            var result = client.submit(id, """
                {"id": "%s", "command": ["sh", "-c", "echo hello from java"],
                 "resources": {"cpu": 1, "memory": "256MB"}, "timeout": "1m"}""".formatted(id)).get();
            System.out.println(result.get("state").getAsString() + " " + result.get("exit_code").getAsInt());
            System.out.print(result.get("stdout_tail").getAsString());

            var longer = "java-" + UUID.randomUUID();
            var cancelled = client.submit(longer, """
                {"id": "%s", "command": ["sleep", "600"]}""".formatted(longer));
            client.cancel(longer);
            System.out.println(cancelled.get().get("state").getAsString());

            client.channel.queueDelete(client.replies);
        }
    }
}
