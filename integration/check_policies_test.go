package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly/mayfly/integration/broker"
)

// TestCheckPolicies has the check look at what only a broker's management shows: policies by which tasks get lost, acknowledgement timeouts, and the clock.
func TestCheckPolicies(t *testing.T) {
	t.Parallel()
	for _, v := range []broker.Version{broker.V310, broker.V43} {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			port := broker.Port(t)
			b := broker.StartWith(t, v, broker.Options{Plugins: []string{"rabbitmq_management"}, Config: fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", port)})
			base := fmt.Sprintf("http://127.0.0.1:%d", port)
			amqpURL := b.Vhost(t)
			h := newHost(t, "MAYFLY_AMQP_URL="+amqpURL, "MAYFLY_MANAGEMENT_URL="+base)
			h.start()
			h.connected() // its queues are there
			p := newProducer(t, amqpURL)
			p.publish("default", `{"id": "a", "shell": "exit 1", "max_attempts": 2, "backoff": "100ms"}`)
			p.wait("a") // and one of those of the wait
			h.stop()
			vhost := broker.VhostName(amqpURL)
			expectOK := func(what, detail string) {
				t.Helper()
				var list []found
				var code int
				h.until("nothing is wrong", func() bool { // what is cleared stays with a queue for a moment, too
					list, code = h.checked(0)
					return code == 0
				})
				if !slices.ContainsFunc(list, func(f found) bool { return f.OK && f.What == what && strings.Contains(f.Detail, detail) }) {
					t.Errorf("exit code %d, want %s: %s among %+v", code, what, detail, list)
				}
			}
			expectOK("broker's policies", "none by which a task would get lost")
			expectOK("broker's clock", "within seconds")
			expectOK("ack timeout", "cannot be seen")

			erlang := func(format string, args ...any) {
				t.Helper()
				if out, err := b.Eval(fmt.Sprintf(format, args...)); err != nil || !strings.Contains(out, "ok") {
					t.Fatalf("%s: %v", out, err)
				}
			}
			set := func(function, name, definition string) { // as rabbitmqctl set_policy and set_operator_policy do, in a hundredth of the time
				t.Helper()
				erlang(`rabbit_policy:%s(<<"%s">>, <<"%s">>, <<"^mayfly">>, <<"%s">>, <<"0">>, <<"queues">>, <<"test">>).`, function, vhost, name, strings.ReplaceAll(definition, `"`, `\"`))
			}
			unset := func(function, name string) {
				t.Helper()
				erlang(`rabbit_policy:%s(<<"%s">>, <<"%s">>, <<"test">>).`, function, vhost, name)
			}
			wrong := func(detail, remedy string) {
				t.Helper()
				var list []found
				var code int
				h.until("the policy shows", func() bool { // it comes to a queue a moment after it was set
					list, code = h.checked(0)
					return slices.ContainsFunc(list, func(f found) bool { return strings.Contains(f.Detail, detail) })
				})
				h.expectWrong(list, code, "broker's policies", detail, remedy)
			}
			for definition, does := range map[string]string{
				`{"message-ttl": 60000}`:    "what waits for longer than 1m0s is dropped",
				`{"expires": 3600000}`:      "a queue that no host has used for 1h0m0s is deleted",
				`{"max-length": 1000}`:      "the oldest is dropped when a queue is full",
				`{"delivery-limit": 3}`:     "what was delivered more than 3 times is dropped",
				`{"max-length-bytes": 10}`:  "the oldest is dropped",
				`{"overflow": "drop-head"}`: "what has waited may get lost on its way back",
				`{"dead-letter-exchange": "x", "dead-letter-routing-key": "y"}`: "what has waited is to go back by another key",
			} {
				set("parse_set", "careless", definition)
				wrong("by the policy careless, "+does, "rabbitmqctl clear_policy -p "+vhost+" careless")
				unset("delete", "careless")
			}
			// Nor do those of the wait go with the queues that nobody uses, nor are dead letters dropped.
			for name, definition := range map[string]string{"mayfly.wait.": `{"expires": 1800000}`, "mayfly.dead": `{"message-ttl": 60000}`} {
				set("parse_set", "careless", definition)
				wrong(name, "rabbitmqctl clear_policy")
				unset("delete", "careless")
			}
			set("parse_set_op", "theirs", `{"message-ttl": 60000}`)
			wrong("by the policy theirs", "clear_operator_policy")
			unset("delete_op", "theirs")

			harmless := `{"max-length": 1000, "overflow": "reject-publish", "delivery-limit": 20}`
			if v != broker.V310 { // which refuses the key
				harmless = strings.Replace(harmless, "{", `{"consumer-timeout": 86400000, `, 1)
			}
			set("parse_set", "careful", harmless)
			if v != broker.V310 {
				h.until("the policy shows", func() bool {
					list, _ := h.checked(0)
					return slices.ContainsFunc(list, func(f found) bool { return f.What == "ack timeout" && strings.HasPrefix(f.Detail, "24h0m0s by policy") })
				})
			}
			expectOK("broker's policies", "none by which a task would get lost")
			// The manager says it, too: for sure where a policy shows, else as what may be.
			level, reason := "INFO", "cannot be seen from here"
			if v != broker.V310 {
				set("parse_set", "hasty", `{"consumer-timeout": 3600000}`)
				unset("delete", "careful")
				h.until("the policy shows", func() bool {
					list, _ := h.checked(0)
					return slices.ContainsFunc(list, func(f found) bool {
						return strings.HasPrefix(f.Detail, "1h0m0s by policy") && strings.Contains(f.Remedy, "604800000")
					})
				})
				level, reason = "WARN", "1h0m0s by policy; tasks here may take any time"
			}
			before := strings.Count(h.logged(), "may outlast")
			h.start()
			h.until("the manager warns", func() bool { return strings.Count(h.logged(), "may outlast") > before })
			h.stop()
			lines := regexp.MustCompile(`.*may outlast.*`).FindAllString(h.logged(), -1)
			if last := lines[len(lines)-1]; !strings.Contains(last, `"level":"`+level+`"`) || !strings.Contains(last, reason) || !strings.Contains(last, "604800000") {
				t.Errorf("it says: %s", last)
			}

			// Its clock is a minute ahead, as far as the answers tell.
			ahead := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(mustParse(t, base)) }, ModifyResponse: func(r *http.Response) error {
				r.Header.Set("Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
				return nil
			}})
			defer ahead.Close()
			h.env = append(h.env, "MAYFLY_MANAGEMENT_URL="+ahead.URL)
			list, code := h.checked(0)
			h.expectWrong(list, code, "broker's clock", "are 1m0s apart", "set-ntp")
			h.env = append(h.env, "MAYFLY_MANAGEMENT_URL="+strings.Replace(base, "//", "//guest:wrong@", 1))
			list, code = h.checked(0)
			h.expectWrong(list, code, "broker's policies", `refuses the user "guest"`, "MAYFLY_MANAGEMENT_URL")
			if slices.ContainsFunc(list, func(f found) bool { return strings.Contains(f.Detail+f.Remedy, "wrong@") }) {
				t.Errorf("a password: %+v", list)
			}
			h.env = append(h.env, "MAYFLY_MANAGEMENT_URL="+fmt.Sprintf("http://127.0.0.1:%d", broker.Port(t)))
			list, code = h.checked(0)
			h.expectWrong(list, code, "broker's policies", "cannot ask RabbitMQ's management", "rabbitmq-plugins enable")
		})
	}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
