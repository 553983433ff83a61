package rabbit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestPolicies looks at what policies and arguments do to the queues that hold messages and to those that give them back.
func TestPolicies(t *testing.T) {
	t.Parallel()
	wait := `{"x-queue-type": "quorum", "x-message-ttl": 1000, "x-dead-letter-exchange": "mayfly.tasks", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}`
	plain := `{"x-queue-type": "quorum"}`
	for _, tt := range []struct{ name, arguments, policy, want, remedy string }{
		{"mayfly.pool.a.high", plain, `[]`, "", ""},
		{"mayfly.pool.a.high", `[]`, `{}`, "", ""},
		{"mayfly.pool.a.high", plain, `{"message-ttl": 60000}`, "by the policy their own, what waits for longer than 1m0s is dropped", "clear_policy -p '/a b' 'their own'"},
		{"mayfly.pool.a.high", `{"x-message-ttl": 60000}`, `{}`, "by its own arguments, what waits for longer than 1m0s", "delete_queue -p '/a b' QUEUE"},
		{"mayfly.pool.a.high", `{"x-max-length": 5}`, `{"overflow": "reject-publish"}`, "", ""},
		{"mayfly.pool.a.high", `{"x-max-length": 5, "x-overflow": "reject-publish"}`, `{"overflow": "drop-head"}`, "by its own arguments, the oldest is dropped", "delete_queue"},
		{"mayfly.pool.a.high", plain, `{"dead-letter-exchange": "x", "dead-letter-routing-key": "y"}`, "", ""},
		{"mayfly.dead", plain, `{"message-ttl": 60000}`, "what waits for longer", "clear_policy"},
		{"mayfly.dead", plain, `{"max-length": 100}`, "the oldest is dropped", "clear_policy"},
		{"mayfly.dead", plain, `{"expires": 100}`, "a queue that no host has used", "clear_policy"},
		{"mayfly.dead", plain, `{"delivery-limit": 5}`, "more than 5 times", "clear_policy"},
		{"mayfly.wait.1s", wait, `{}`, "", ""},
		{"mayfly.wait.1s", wait, `{"message-ttl": 500, "dead-letter-exchange": "x", "max-length": 10, "delivery-limit": 3}`, "", ""},
		{"mayfly.wait.1s", wait, `{"dead-letter-exchange": "x", "dead-letter-routing-key": "y"}`, "by the policy their own, what has waited is to go back by another key", "clear_policy"},
		{"mayfly.wait.1s", wait, `{"overflow": "drop-head"}`, "may get lost on its way back", "clear_policy"},
		{"mayfly.wait.1s", wait, `{"expires": 1800000}`, "a queue that no host has used for 30m0s", "clear_policy"},
		{"mayfly.wait.1s", plain, `{}`, "by its own arguments, what waits does not come back", "delete_queue"},
		{"mayfly.wait.1s", strings.Replace(wait, "at-least", "at-most", 1), `{}`, "by its own arguments, what has waited may get lost", "delete_queue"},
		{"mayfly.host.h.tasks", strings.Replace(wait, "{", `{"x-expires": 3600000, `, 1), `{"expires": 7200000}`, "", ""},
		{"mayfly.host.h.tasks", wait, `{"dead-letter-routing-key": "y"}`, "by another key", "clear_policy"},
	} {
		q := managed{Name: tt.name, Arguments: json.RawMessage(tt.arguments), Effective: json.RawMessage(tt.policy), Policy: "their own"}
		x := examination{vhost: "/a b"}
		if look := x.passes; strings.HasPrefix(tt.name, waitPrefix) || strings.HasPrefix(tt.name, hostPrefix) {
			look(&q)
		} else {
			x.keeps(&q)
		}
		text, remedies := "", ""
		for _, l := range x.lacks() {
			text, remedies = text+l.Err.Error(), remedies+l.Remedy
		}
		if (tt.want == "") != (text == "") || !strings.Contains(text, tt.want) || !strings.Contains(remedies, tt.remedy) {
			t.Errorf("%s %s %s: %q (%s), want %q (%s)", tt.name, tt.arguments, tt.policy, text, remedies, tt.want, tt.remedy)
		}
	}
	x := examination{vhost: "/"}
	for i := range 9 {
		x.passes(&managed{Name: fmt.Sprint(waitPrefix, i), Arguments: json.RawMessage(wait), Effective: json.RawMessage(`{"expires": 1}`), Policy: "p"})
	}
	if l := x.lacks(); len(l) != 1 || !strings.HasSuffix(l[0].Err.Error(), ": mayfly.wait.0, mayfly.wait.1, mayfly.wait.2, mayfly.wait.3, mayfly.wait.4, mayfly.wait.5 and 3 more") {
		t.Errorf("%v", l)
	}
}
