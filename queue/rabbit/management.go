package rabbit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mayfly/mayfly/queue"
)

// Management is what the broker's management API shows, and AMQP does not.
type Management struct {
	// Ahead is by how much the broker's clock is ahead of this host's, to about a second.
	Ahead time.Duration
	// Lacks are the policies by which tasks would get lost.
	Lacks []Lack
	// AckTimeout is the shortest acknowledgement timeout that a policy sets for a queue of tasks; 0 where none does for one of them, so that the broker's own holds
	// there, which the API does not show.
	AckTimeout time.Duration
}

const (
	// pageSize is how many queues are asked for at once, the most that the API gives.
	pageSize = 500
	// answerMost bounds an answer, in bytes: a page of queues has some 200 KiB.
	answerMost = 16 << 20
)

// managed is a queue as the management API shows it (rabbitmq-server's rabbit_mgmt_wm_queues).
type managed struct {
	Name      string `json:"name"`
	Policy    string `json:"policy"`
	Operators string `json:"operator_policy"`
	// Effective is the union of the two; it may be [] where there is neither.
	Effective json.RawMessage `json:"effective_policy_definition"`
}

// Management asks the management API at base, as http://broker:15672, for what it shows of the queues of the client's pools. Where base names no user, it is the one of
// the AMQP URL. The user needs the tag management. No error holds a password.
func (c *Client) Management(ctx context.Context, base string) (*Management, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("cannot read the URL of RabbitMQ's management: it is http://host:15672 or https://..., and a password in it must be percent-encoded")
	}
	d := c.receive.dialer
	e := d.endpoints[0]
	user := u.User
	if user == nil {
		if own, err := url.Parse(e.url); err == nil {
			user = own.User
		}
	}
	transport := &http.Transport{TLSClientConfig: d.tls.Clone(), DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	m := &Management{}
	wanted := map[string]bool{}
	for _, pool := range c.pools {
		for _, band := range queue.Bands {
			wanted[poolQueue(pool, band)] = true
		}
	}
	var faults []fault
	timeouts := map[string]time.Duration{}
	pages := 1
	for page := 1; page <= pages; page++ {
		var list struct {
			Items []managed `json:"items"`
			Pages int       `json:"page_count"`
		}
		at := u.JoinPath("api/queues", url.PathEscape(e.vhost))
		at.RawQuery = url.Values{"page": {fmt.Sprint(page)}, "page_size": {fmt.Sprint(pageSize)}, "use_regex": {"true"}, "name": {`^mayfly\.pool\.`},
			"columns": {"name,policy,operator_policy,effective_policy_definition"}}.Encode()
		if m.Ahead, err = ask(ctx, transport, at, user, &list); err != nil {
			return nil, err
		}
		pages = list.Pages
		for _, q := range list.Items {
			if wanted[q.Name] {
				q.examine(e.vhost, &faults, timeouts)
			}
		}
	}
	for _, f := range faults {
		m.Lacks = append(m.Lacks, Lack{fmt.Errorf("%s: %s", f.what, strings.Join(f.queues, ", ")), f.remedy})
	}
	if len(timeouts) == len(wanted) && len(wanted) > 0 {
		m.AckTimeout = slices.Min(slices.Collect(maps.Values(timeouts)))
	}
	return m, nil
}

// ask gets an answer as JSON, and returns by how much the clock of who gave it is ahead.
func ask(ctx context.Context, transport http.RoundTripper, at *url.URL, user *url.Userinfo, answer any) (ahead time.Duration, err error) {
	const what = "cannot ask RabbitMQ's management at %s: %w"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return 0, fmt.Errorf(what, at.Host, err)
	}
	if user != nil {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	asked := time.Now()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, fmt.Errorf(what, at.Host, err)
	}
	defer resp.Body.Close()
	answered := time.Now()
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("it refuses the user %q: wrong password, or no tag (rabbitmqctl set_user_tags %[1]s management)", user.Username()))
	case resp.StatusCode != http.StatusOK:
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("it answers %s", resp.Status))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerMost)).Decode(answer); err != nil {
		return 0, fmt.Errorf(what, at.Host, fmt.Errorf("its answer is not that of RabbitMQ: %w", err))
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The date is cut to the second, so half of one is added; what there is between the question and the answer is halved.
		ahead = date.Add(500 * time.Millisecond).Sub(asked.Add(answered.Sub(asked) / 2))
	}
	return ahead, nil
}

// fault is what a policy does to queues that hold tasks.
type fault struct {
	what, remedy string
	queues       []string
}

// examine looks for what a policy does to a queue that holds tasks.
func (q *managed) examine(vhost string, faults *[]fault, timeouts map[string]time.Duration) {
	var policy struct {
		MessageTTL    *int64 `json:"message-ttl"`
		Expires       *int64 `json:"expires"`
		MaxLength     *int64 `json:"max-length"`
		MaxBytes      *int64 `json:"max-length-bytes"`
		Overflow      string `json:"overflow"`
		DeliveryLimit *int64 `json:"delivery-limit"`
		AckTimeout    *int64 `json:"consumer-timeout"`
	}
	if json.Unmarshal(q.Effective, &policy) != nil {
		return // [], which is none
	}
	var names, remedies []string
	for _, p := range []struct{ name, kind string }{{q.Policy, "policy"}, {q.Operators, "operator_policy"}} {
		if p.name != "" {
			names = append(names, p.name)
			remedies = append(remedies, fmt.Sprintf("rabbitmqctl clear_%s -p %s %s", p.kind, vhost, p.name))
		}
	}
	lacks := func(what string) {
		what = fmt.Sprintf("by the policy %s, %s", strings.Join(names, " or "), what)
		i := slices.IndexFunc(*faults, func(f fault) bool { return f.what == what })
		if i < 0 {
			i = len(*faults)
			*faults = append(*faults, fault{what: what, remedy: "have the policy's pattern match no queue of Mayfly, or: " + strings.Join(remedies, ", or: ")})
		}
		(*faults)[i].queues = append((*faults)[i].queues, q.Name)
	}
	if policy.MessageTTL != nil {
		lacks(fmt.Sprintf("what waits for longer than %s is dropped (message-ttl)", milliseconds(*policy.MessageTTL)))
	}
	if policy.Expires != nil {
		lacks(fmt.Sprintf("a queue that no host has used for %s is deleted with all that is in it (expires)", milliseconds(*policy.Expires)))
	}
	if (policy.MaxLength != nil || policy.MaxBytes != nil) && policy.Overflow != "reject-publish" {
		lacks("the oldest is dropped when a queue is full (max-length without overflow=reject-publish)")
	}
	if l := policy.DeliveryLimit; l != nil && *l >= 0 && *l <= refreshAt {
		lacks(fmt.Sprintf("what was delivered more than %d times is dropped (delivery-limit; it must be above %d)", *l, refreshAt))
	}
	if policy.AckTimeout != nil {
		timeouts[q.Name] = milliseconds(*policy.AckTimeout)
	}
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
