package rabbit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// managed is a queue as the management API shows it (rabbitmq-server's rabbit_mgmt_wm_queues).
type managed struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
	Policy    string          `json:"policy"`
	Operators string          `json:"operator_policy"`
	// Effective is the union of the two; it may be [] where there is neither.
	Effective json.RawMessage `json:"effective_policy_definition"`
}

// rules are what a policy, or a queue's own arguments, may say about messages.
type rules struct {
	MessageTTL    *int64  `json:"message-ttl"`
	Expires       *int64  `json:"expires"`
	MaxLength     *int64  `json:"max-length"`
	MaxBytes      *int64  `json:"max-length-bytes"`
	Overflow      string  `json:"overflow"`
	DeliveryLimit *int64  `json:"delivery-limit"`
	AckTimeout    *int64  `json:"consumer-timeout"`
	DeadExchange  string  `json:"dead-letter-exchange"`
	DeadKey       *string `json:"dead-letter-routing-key"`
	DeadStrategy  string  `json:"dead-letter-strategy"`
}

func (q *managed) policy() (r rules) {
	if json.Unmarshal(q.Effective, &r) != nil {
		return rules{} // [], which is none
	}
	return r
}

// arguments are the queue's own, which bear the same names with an x- in front.
func (q *managed) arguments() (r rules) {
	var named map[string]json.RawMessage
	_ = json.Unmarshal(q.Arguments, &named)
	plain := map[string]json.RawMessage{}
	for name, value := range named {
		plain[strings.TrimPrefix(name, "x-")] = value
	}
	text, err := json.Marshal(plain)
	if err != nil || json.Unmarshal(text, &r) != nil {
		return rules{}
	}
	return r
}

// examination looks at queues, and keeps what is wrong with them.
type examination struct {
	vhost  string
	faults []fault
}

// fault is what some queues have in common.
type fault struct {
	what, remedy string
	queues       []string
}

// namesMost is how many queues are named of those that have the same fault.
const namesMost = 6

func (x *examination) lacks() (list []Lack) {
	for _, f := range x.faults {
		names := strings.Join(f.queues[:min(namesMost, len(f.queues))], ", ")
		if more := len(f.queues) - namesMost; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		list = append(list, Lack{fmt.Errorf("%s: %s", f.what, names), f.remedy})
	}
	return list
}

// note keeps what is wrong with a queue, by its policy or by its own arguments.
func (x *examination) note(q *managed, policy bool, what string) {
	remedy := fmt.Sprintf("when it is empty (rabbitmqctl list_queues -p %s name messages): rabbitmqctl delete_queue -p %[1]s QUEUE, and start a host with MAYFLY_DECLARE=auto, which makes it as it should be",
		shellWord(x.vhost))
	by := "by its own arguments"
	if policy {
		var names, remedies []string
		for _, p := range []struct{ name, kind string }{{q.Policy, "policy"}, {q.Operators, "operator_policy"}} {
			if p.name != "" {
				names = append(names, p.name)
				remedies = append(remedies, fmt.Sprintf("rabbitmqctl clear_%s -p %s %s", p.kind, shellWord(x.vhost), shellWord(p.name)))
			}
		}
		by = "by the policy " + strings.Join(names, " or ")
		remedy = "have the policy's pattern match no queue of Mayfly, or: " + strings.Join(remedies, ", or: ")
	}
	what = by + ", " + what
	i := slices.IndexFunc(x.faults, func(f fault) bool { return f.what == what && f.remedy == remedy })
	if i < 0 {
		i = len(x.faults)
		x.faults = append(x.faults, fault{what: what, remedy: remedy})
	}
	x.faults[i].queues = append(x.faults[i].queues, q.Name)
}

// keeps looks at a queue that keeps messages until somebody takes them: those of pools, and the dead letters.
func (x *examination) keeps(q *managed) {
	policy, own := q.policy(), q.arguments()
	overflow := policy.Overflow // it outranks the argument
	if overflow == "" {
		overflow = own.Overflow
	}
	for _, by := range []struct {
		rules
		policy bool
	}{{policy, true}, {own, false}} {
		if by.MessageTTL != nil {
			x.note(q, by.policy, fmt.Sprintf("what waits for longer than %s is dropped (message-ttl)", milliseconds(*by.MessageTTL)))
		}
		if by.Expires != nil {
			x.note(q, by.policy, unused(*by.Expires))
		}
		if (by.MaxLength != nil || by.MaxBytes != nil) && overflow != rejectPublish {
			x.note(q, by.policy, "the oldest is dropped when a queue is full (max-length without overflow=reject-publish)")
		}
		if l := by.DeliveryLimit; l != nil && *l >= 0 && *l <= refreshAt {
			x.note(q, by.policy, fmt.Sprintf("what was delivered more than %d times is dropped (delivery-limit; it must be above %d)", *l, refreshAt))
		}
	}
}

// passes looks at a queue from which messages go back to their pools after a while: those of the wait, and what a host is handed. Of its arguments, a policy outranks the
// overflow and the expiry, and is outranked in what becomes of dead letters (rabbitmq-server's rabbit_quorum_queue); of two times the shorter one counts.
func (x *examination) passes(q *managed) {
	policy, own := q.policy(), q.arguments()
	if policy.DeadKey != nil || own.DeadKey != nil {
		x.note(q, own.DeadKey == nil, "what has waited is to go back by another key, so that it does not find its pool (dead-letter-routing-key)")
	}
	if policy.Overflow != "" && policy.Overflow != rejectPublish {
		x.note(q, true, "what has waited may get lost on its way back (overflow; it must be reject-publish)")
	} else if policy.Overflow == "" && own.Overflow != rejectPublish || own.DeadStrategy != atLeastOnce {
		x.note(q, false, "what has waited may get lost on its way back (x-overflow, x-dead-letter-strategy)")
	}
	if own.MessageTTL == nil || own.DeadExchange != tasksExchange {
		x.note(q, false, "what waits does not come back (x-message-ttl, x-dead-letter-exchange)")
	}
	if !strings.HasPrefix(q.Name, waitPrefix) {
		return // one that a host has left expires when it is long empty
	}
	if policy.Expires != nil {
		x.note(q, true, unused(*policy.Expires))
	} else if own.Expires != nil {
		x.note(q, false, unused(*own.Expires))
	}
}

func unused(ms int64) string {
	return fmt.Sprintf("a queue that no host has used for %s is deleted with all that is in it (expires)", milliseconds(ms))
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// shellWord writes a word as a shell reads it.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-:@%+=", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
